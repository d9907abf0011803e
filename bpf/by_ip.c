/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Entry probes of a trace event or a perf kprobe: the instruction pointer names the probe. */
int by_ip(struct pt_regs *ctx)
{
	hit_at(ctx, *(WORD *)((char *)ctx + INSTRUCTION_POINTER_AT));
	return 0;
}
