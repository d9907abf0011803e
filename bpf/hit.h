/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What every program does on a hit: find the probe's slot, test its gate, count, run the action.
 *
 * programs/source.py puts text in front of this file:
 *   WORD, INSTRUCTION_POINTER_AT  type and pt_regs offset of the instruction pointer
 *   CELLS_ARE_SHARED              defined where bpf_get_smp_processor_id() may be wrong
 *   BUCKET_SHIFT, EPOCH           placeholders, which the loader replaces
 *   FILTERS_PASS(ctx)             the filters, if there are any
 *   ON_HIT(ctx, slot, cell)       the action, if it does more than count
 *
 * The maps have one element here. They give bcc the types; programs/probe_maps.py creates maps of
 * the right size and the loader puts their descriptors into the code. All values are u64, so that
 * an array can be mapped into user space without padding.
 */

/* [slot]: the stride of hits[] while the probe counts, else 0. Slot 0 stands for no probe; its gate
 * is always open. */
BPF_ARRAY(gates, u64, 1);
/* [cpu * stride + slot]: each CPU writes its own cells only, unless CELLS_ARE_SHARED. Slot 0 counts
 * runs that counted for no probe (the gate was closed, or a filter rejected the hit), so the sum of
 * all cells can be compared with the kernel's count of hits. */
BPF_ARRAY(hits, u64, 1);
/* Instruction pointer -> slot, a hash table without chains. A bucket keeps its first owner. */
struct bucket {
	u64 ip;
	u64 slot;
};
BPF_ARRAY(buckets, struct bucket, 1);
/* Instruction pointer -> slot where the bucket was taken: slower. */
BPF_HASH(slots, u64, u64, 1);
/* Instruction pointer -> hits, where no slot has claimed it: its module was loaded later. */
BPF_HASH(unclaimed, u64, u64, 1);

#ifndef FILTERS_PASS
#define FILTERS_PASS(ctx) 1
#endif
#ifndef ON_HIT
#define ON_HIT(ctx, slot, cell)
#endif

/* Returns 0 if the probe does not count, or the action does not want the call's return. */
static inline u64 hit(struct pt_regs *ctx, u64 slot)
{
	u32 index = slot, cell;
	u64 *gate, *count, stride = 0;

	gate = gates.lookup(&index);
	/* Read once: user space may close it at any moment. */
	if (gate)
		stride = *(volatile u64 *)gate;
	if (!stride) {
		index = slot = 0;
		gate = gates.lookup(&index);
		if (!gate)
			return 0;
		stride = *gate;
	}
	cell = bpf_get_smp_processor_id() * stride + slot;
	count = hits.lookup(&cell);
	if (count) {
#ifdef CELLS_ARE_SHARED
		__sync_fetch_and_add(count, 1);
#else
		/* Handlers do not nest on a CPU: the kernel skips the inner one and counts it as
		 * missed (trace_call_bpf(), kernel/trace/bpf_trace.c). */
		*count += 1;
#endif
	}
#ifdef ON_HIT_ASKS_FOR_RETURN
	return slot ? ON_HIT(ctx, slot, cell) : 0;
#else
	if (slot) {
		ON_HIT(ctx, slot, cell);
	}
	return slot;
#endif
}

static inline u64 hit_at(struct pt_regs *ctx, u64 ip)
{
	struct bucket *bucket;
	u64 *slot;
	u32 index;

	/* First, so that a hit that nobody wants costs least. */
	if (!FILTERS_PASS(ctx))
		return hit(ctx, 0);
	/* bucket_of() in programs/probe_maps.py computes the same. */
	index = (u32)ip * 2654435769u >> BUCKET_SHIFT;
	bucket = buckets.lookup(&index);
	/* User space writes slot before ip, but weakly ordered CPUs may see ip first. */
	if (bucket && bucket->ip == ip && bucket->slot)
		return hit(ctx, bucket->slot);
	slot = slots.lookup(&ip);
	if (slot)
		return hit(ctx, *slot);
	unclaimed.increment(ip);
	return 0;
}
