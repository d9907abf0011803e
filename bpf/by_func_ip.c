/* Return probes where the kernel can tell the function (Linux 5.15): pt_regs do not. */
int by_func_ip(struct pt_regs *ctx)
{
	hit_at(bpf_get_func_ip(ctx));
	return 0;
}
