/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A session (Linux 6.10): one kprobe_multi link for both ends of calls, which runs this program at
 * the entry and at the return. Where the entry returns 1, the kernel skips the return.
 */

/* bpf_session_is_return(), a kernel function. The loader makes a call of it from this call of a
 * helper that no kernel has. It takes the argument since Linux 7.0, and reads none before. */
static u64 (*session_is_return)(struct pt_regs *ctx) = (void *)SESSION_IS_RETURN;

int by_session(struct pt_regs *ctx)
{
	u64 ip = bpf_get_func_ip(ctx), *epoch;
	u32 cpu;

	/* A bool: the kernel may leave anything in the other bits. */
	if ((u8)session_is_return(ctx)) {
		/* In any epoch, because a call returns in the link of its entry. */
		return_from(ctx, ip);
		return 0;
	}
	cpu = bpf_get_smp_processor_id();
	epoch = epochs.lookup(&cpu);
	if (epoch && *epoch == EPOCH && hit_at(ctx, ip))
		return 0;
	return 1;
}
