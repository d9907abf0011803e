/* Entry probes of a trace event or a perf kprobe: the instruction pointer names the probe. */
int by_ip(struct pt_regs *ctx)
{
	hit_at(PT_REGS_IP(ctx));
	return 0;
}
