/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Return probes since Linux 5.15: pt_regs hold the return address, the helper names the function. */
int by_func_ip(struct pt_regs *ctx)
{
	hit_at(ctx, bpf_get_func_ip(ctx));
	return 0;
}
