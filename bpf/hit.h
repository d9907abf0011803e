/* What all counting programs share: the maps, and what one hit does.
 *
 * The maps here have one element each: they give bcc the types, and batchprobe/programs.py puts
 * maps of the right size in their place. Each value is a u64, so that an array can be mapped into
 * user space without padding.
 *
 * Of the architecture they need some facts, which batchprobe/programs.py puts before this text: WORD,
 * a register's type, INSTRUCTION_POINTER_AT, where it is in struct pt_regs, and CELLS_ARE_SHARED
 * where a program may be told another CPU than the one it runs on. PLACE_SHIFT and EPOCH are for the
 * loader, which puts others in their place: no other shift is as wide, no other number the same.
 */

/* [slot]: while the probe counts, how many cells of counts[] one CPU owns; 0 from its detach on. Slot
 * 0's gate is never closed. */
BPF_ARRAY(gates, u64, 1);
/* [cpu * stride + slot]: a CPU writes to its own cells only. Slot 0 counts the hits that no open
 * gate wanted, so that all runs of the program can be compared with the kernel's own count. */
BPF_ARRAY(counts, u64, 1);
/* Where the slot of an instruction pointer is looked for first: its own place, free or taken. Once
 * taken, a place is that instruction pointer's for ever. */
struct place {
	u64 ip;
	u64 slot;
};
BPF_ARRAY(places, struct place, 1);
/* Instruction pointer -> slot, of those whose place another one had taken: it takes longer. */
BPF_HASH(slots, u64, u64, 1);
/* Hits at an address that is in no slot: a probe the kernel armed when its module came. */
BPF_HASH(strays, u64, u64, 1);

static inline void hit(u64 slot)
{
	u32 index = slot, cell;
	u64 *gate, *count, stride = 0;

	gate = gates.lookup(&index);
	/* Read once: it may be closed at any moment. */
	if (gate)
		stride = *(volatile u64 *)gate;
	if (!stride) {
		index = slot = 0;
		gate = gates.lookup(&index);
		if (!gate)
			return;
		stride = *gate;
	}
	cell = bpf_get_smp_processor_id() * stride + slot;
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

static inline void hit_at(u64 ip)
{
	/* batchprobe/bank.py looks in the same place; with fewer places the shift is wider. */
	u32 index = (u32)ip * 2654435769u >> PLACE_SHIFT;
	struct place *place = places.lookup(&index);
	u64 *slot;

	/* On some architectures ip may be seen before the slot that was written before it. */
	if (place && place->ip == ip && place->slot) {
		hit(place->slot);
		return;
	}
	slot = slots.lookup(&ip);
	if (slot) {
		hit(*slot);
		return;
	}
	strays.increment(ip);
}
