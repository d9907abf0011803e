/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Return probes before Linux 5.15: the kernel stores the kprobe whose handler runs in the per-CPU
 * variable current_kprobe, for return probes too (kernel/kprobes.c).
 */

/* [0]: address of __per_cpu_offset[], [1]: address of the per-CPU variable current_kprobe. */
BPF_ARRAY(symbols, u64, 1);

/* In struct kprobe (include/linux/kprobes.h) addr follows a hlist_node, a list_head and an unsigned
 * long; unchanged from 2.6.17 to 6.12. */
#define KPROBE_ADDR (5 * sizeof(WORD))

static inline WORD running_kprobe(void)
{
	u32 first = 0, second = 1;
	u64 cpu = bpf_get_smp_processor_id();
	u64 *offsets = symbols.lookup(&first), *variable = symbols.lookup(&second);
	WORD offset = 0, kprobe = 0, address = 0;

	if (!offsets || !variable)
		return 0;
	bpf_probe_read_kernel(&offset, sizeof(offset), (void *)(*offsets + cpu * sizeof(offset)));
	bpf_probe_read_kernel(&kprobe, sizeof(kprobe), (void *)(*variable + offset));
	bpf_probe_read_kernel(&address, sizeof(address), (void *)(kprobe + KPROBE_ADDR));
	return address;
}

/* Without the symbols, no function is at address 0. */
int by_running_kprobe(struct pt_regs *ctx)
{
	hit_at(ctx, running_kprobe());
	return 0;
}
