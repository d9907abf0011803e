/* A kprobe_multi link: the low half of the cookie names the probe's slot, the high half the epoch
 * in which its link counts. While a smaller link takes over from a larger one both fire; the epoch
 * of a CPU decides which of them counts there. */

/* [cpu]: the epoch that counts on that CPU. */
BPF_ARRAY(epochs, u64, 1);

int by_cookie(struct pt_regs *ctx)
{
	u64 cookie = bpf_get_attach_cookie(ctx);
	u32 cpu = bpf_get_smp_processor_id();
	u64 *epoch = epochs.lookup(&cpu);

	if (epoch && *epoch == cookie >> 32)
		hit((u32)cookie);
	return 0;
}
