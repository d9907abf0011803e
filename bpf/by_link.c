/* A kprobe_multi link: the kernel tells the function. While a smaller link takes over from a larger
 * one both fire; the epoch of a CPU decides which of them counts there.
 *
 * A cookie would name the slot at once. But the kernel sorts them when it makes the link, and at each
 * hit looks for the function's among all of them (bpf_kprobe_multi_cookie(),
 * kernel/trace/bpf_trace.c). */

/* [cpu]: the epoch that counts on that CPU. */
BPF_ARRAY(epochs, u64, 1);

int by_link(struct pt_regs *ctx)
{
	u32 cpu = bpf_get_smp_processor_id();
	u64 *epoch = epochs.lookup(&cpu);

	if (epoch && *epoch == EPOCH)
		hit_at(bpf_get_func_ip(ctx));
	return 0;
}
