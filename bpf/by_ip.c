/* Entry probes of a trace event or a perf kprobe: the instruction pointer names the probe. */
int by_ip(struct pt_regs *ctx)
{
	hit_at(*(WORD *)((char *)ctx + INSTRUCTION_POINTER_AT));
	return 0;
}
