/* What all counting programs share: the maps, and what one hit does.
 *
 * The maps here have one element each: they give bcc the types, and batchprobe/programs.py puts
 * maps of the right size in their place. Each value is a u64, so that an array can be mapped into
 * user space without padding.
 *
 * Of the architecture they need some facts, which batchprobe/programs.py puts before this text: WORD,
 * a register's type, INSTRUCTION_POINTER_AT, where it is in struct pt_regs, and CELLS_ARE_SHARED
 * where a program may be told another CPU than the one it runs on.
 */

/* [0]: how many cells of counts[] one CPU owns. */
BPF_ARRAY(config, u64, 1);
/* [slot]: 1 while the probe counts, 0 from its detach on. */
BPF_ARRAY(gates, u64, 1);
/* [cpu * stride + slot]: a CPU writes to its own cells only. Slot 0 counts the hits that no open
 * gate wanted, so that all runs of the program can be compared with the kernel's own count. */
BPF_ARRAY(counts, u64, 1);
/* Instruction pointer -> slot. */
BPF_HASH(slots, u64, u64, 1);
/* Hits at an address that is in no slot: a probe the kernel armed when its module came. */
BPF_HASH(strays, u64, u64, 1);

static inline void add(u64 slot)
{
	u32 zero = 0, cell;
	u64 *stride, *count;

	stride = config.lookup(&zero);
	if (!stride)
		return;
	cell = bpf_get_smp_processor_id() * *stride + slot;
	count = counts.lookup(&cell);
	if (count)
#ifdef CELLS_ARE_SHARED
		__sync_fetch_and_add(count, 1);
#else
		/* No handler of ours can interrupt this one: the kernel skips a program while
		 * another runs on the CPU, and counts that as missed. */
		*count += 1;
#endif
}

static inline void hit(u64 slot)
{
	u32 index = slot;
	u64 *gate = gates.lookup(&index);

	add(gate && *gate ? slot : 0);
}

static inline void hit_at(u64 ip)
{
	u64 *slot = slots.lookup(&ip);

	if (slot) {
		hit(*slot);
		return;
	}
	strays.increment(ip);
}
