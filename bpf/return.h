/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The other end of a call, for actions that look at both (hit.h is the entry). No filter: the entry
 * has passed them. Nothing happens behind a closed gate, so that results are final after the barrier.
 */
static inline void return_from(struct pt_regs *ctx, u64 ip)
{
	u32 index = (u32)ip * 2654435769u >> BUCKET_SHIFT, cell;
	struct bucket *bucket;
	u64 *gate, *found, slot = 0, stride = 0;

	bucket = buckets.lookup(&index);
	if (bucket && bucket->ip == ip) {
		slot = bucket->slot;
	} else {
		found = slots.lookup(&ip);
		if (found)
			slot = *found;
	}
	index = slot;
	gate = gates.lookup(&index);
	if (gate)
		stride = *(volatile u64 *)gate;
	if (!slot || !stride)
		return;
	cell = bpf_get_smp_processor_id() * stride + slot;
	on_return(ctx, slot, cell);
}

/* A kprobe_multi link, and a kretprobe since Linux 5.15. */
int return_by_func_ip(struct pt_regs *ctx)
{
	return_from(ctx, bpf_get_func_ip(ctx));
	return 0;
}

/* A kretprobe before. */
int return_by_running_kprobe(struct pt_regs *ctx)
{
	return_from(ctx, running_kprobe());
	return 0;
}
