/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which hits count: the tests of all shipped filters, as one filter (filters/scope.py).
 *
 * Each SCOPE_* constant is 0 if its test is not asked for. The loader writes it into the code, and
 * the verifier removes what it makes unreachable (opt_remove_dead_code(), kernel/bpf/verifier.c,
 * Linux 5.1). So a test that nobody asked for costs one instruction.
 *
 * `current` is the task that an interrupt interrupts, in the interrupt's own calls too.
 */

struct comm {
	char text[16];
};
BPF_HASH(scope_pids, u64, u64, 1);
BPF_HASH(scope_tids, u64, u64, 1);
BPF_HASH(scope_uids, u64, u64, 1);
BPF_HASH(scope_comms, struct comm, u64, 1);
/* Inode number of a network namespace -> 1. */
BPF_HASH(scope_nets, u64, u64, 1);
/* [cpu]: 1 if hits there count. */
BPF_ARRAY(scope_cpus, u64, 1);
BPF_CGROUP_ARRAY(scope_cgroups, 1);
/* Thread ID -> what it is to the followed tree: see tree.c. */
BPF_HASH(tree, u64, u64, 1);

#define MAX_CGROUPS 8

/* The inode number of current's network namespace; 0 in a task that is past exit_task_namespaces(). */
static inline u64 network_namespace(void)
{
	u64 task = bpf_get_current_task();
	WORD nsproxy = 0, net = 0;
	u32 inode = 0;

	bpf_probe_read_kernel(&nsproxy, sizeof(nsproxy), (void *)(task + CONSTANT(TASK_NSPROXY_AT)));
	if (!nsproxy)
		return 0;
	bpf_probe_read_kernel(&net, sizeof(net), (void *)(nsproxy + CONSTANT(NSPROXY_NET_AT)));
	bpf_probe_read_kernel(&inode, sizeof(inode), (void *)(net + CONSTANT(NET_INODE_AT)));
	return inode;
}

static inline int scope(struct pt_regs *ctx)
{
	u64 ids = bpf_get_current_pid_tgid();
	u64 pid = ids >> 32, tid = (u32)ids, one = CONSTANT(SCOPE_PID);

	if (one && pid != one)
		return 0;
	if (CONSTANT(SCOPE_PIDS) && !scope_pids.lookup(&pid))
		return 0;
	if (CONSTANT(SCOPE_TIDS) && !scope_tids.lookup(&tid))
		return 0;
	if (CONSTANT(SCOPE_TREE)) {
		u64 *state = tree.lookup(&tid);

		if (!state || !(*state & IN_TREE))
			return 0;
	}
	if (CONSTANT(SCOPE_CPUS)) {
		u32 cpu = bpf_get_smp_processor_id();
		u64 *counts = scope_cpus.lookup(&cpu);

		if (!counts || !*counts)
			return 0;
	}
	if (CONSTANT(SCOPE_UIDS)) {
		u64 uid = (u32)bpf_get_current_uid_gid();

		if (!scope_uids.lookup(&uid))
			return 0;
	}
	if (CONSTANT(SCOPE_COMMS)) {
		struct comm comm = {};

		bpf_get_current_comm(&comm, sizeof(comm));
		if (!scope_comms.lookup(&comm))
			return 0;
	}
	if (CONSTANT(SCOPE_NETS)) {
		u64 inode = network_namespace();

		if (!scope_nets.lookup(&inode))
			return 0;
	}
	if (CONSTANT(SCOPE_CGROUPS)) {
		u64 count = CONSTANT(SCOPE_CGROUPS);
		int found = 0;

#pragma unroll
		for (int at = 0; at < MAX_CGROUPS; at++)
			if (at < count && scope_cgroups.check_current_task(at) == 1)
				found = 1;
		if (!found)
			return 0;
	}
	return 1;
}
