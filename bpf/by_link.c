/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A kprobe_multi link: the kernel names the function. While a smaller link takes over from a larger
 * one, both fire; the epoch of the CPU decides which of them counts.
 *
 * A cookie could hold the slot, but the kernel finds a cookie by binary search over all functions
 * of the link at every hit (bpf_kprobe_multi_cookie(), kernel/trace/bpf_trace.c).
 */

/* [cpu]: the epoch that counts there. */
BPF_ARRAY(epochs, u64, 1);

int by_link(struct pt_regs *ctx)
{
	u32 cpu = bpf_get_smp_processor_id();
	u64 *epoch = epochs.lookup(&cpu);

	if (epoch && *epoch == EPOCH)
		hit_at(ctx, bpf_get_func_ip(ctx));
	return 0;
}
