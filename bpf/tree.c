/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Follows a tree of processes, thread by thread: whoever a member forks is a member, from before
 * its first instruction until its task is freed.
 *
 * The loader puts two offsets in: TASK_PID_AT in struct task_struct, where the kernel has BTF, and
 * FIELD_AT in the record of a trace event, as tracefs describes it (its file "format").
 */

/* Thread ID -> bits of tree.h. */
BPF_HASH(tree, u64, u64, 1);
/* [0]: threads for which the map had no room. */
BPF_ARRAY(tree_lost, u64, 1);

static inline void born(u64 child)
{
	u64 parent = (u32)bpf_get_current_pid_tgid(), bits, *lost;
	u64 *state = tree.lookup(&parent);
	u32 first = 0;

	bits = state ? *state & (IN_TREE | JOINS_AT_EXEC) : 0;
	if (state && *state & SPAWNS)
		bits = JOINS_AT_EXEC;
	/* The number may have belonged to a member that has exited. */
	if (!bits) {
		tree.delete(&child);
		return;
	}
	if (tree.update(&child, &bits)) {
		lost = tree_lost.lookup(&first);
		if (lost)
			__sync_fetch_and_add(lost, 1);
	}
}

static inline void freed(u64 task)
{
	u64 *state = tree.lookup(&task);

	/* Without EXITS the number has gone to a new member already. */
	if (state && *state & EXITS)
		tree.delete(&task);
}

/* Raw tracepoint task_newtask: child. In the parent. Not sched_process_fork, which the kernel threads
 * that io_uring and vhost start for a process (create_io_thread(), kernel/fork.c) do not pass. */
int tree_newtask(struct bpf_raw_tracepoint_args *ctx)
{
	born(pid_of(ctx->args[0]));
	return 0;
}

/* Raw tracepoint sched_process_free: task. In anybody. */
int tree_free(struct bpf_raw_tracepoint_args *ctx)
{
	freed(pid_of(ctx->args[0]));
	return 0;
}

/* The same two as trace events, for kernels without BTF. */
int tree_newtask_event(void *ctx)
{
	born(*(u32 *)((char *)ctx + FIELD_AT));
	return 0;
}

int tree_free_event(void *ctx)
{
	freed(*(u32 *)((char *)ctx + FIELD_AT));
	return 0;
}

/* Raw tracepoint sched_process_exec: task, its thread ID before. In the task: a thread that is not
 * the leader takes over the leader's ID. */
int tree_exec(struct bpf_raw_tracepoint_args *ctx)
{
	u64 tid = (u32)bpf_get_current_pid_tgid(), before = (u32)ctx->args[1], member = IN_TREE;
	u64 *state = tree.lookup(&before);

	if (!state || !(*state & (IN_TREE | JOINS_AT_EXEC)))
		return 0;
	tree.update(&tid, &member);
	if (before != tid)
		tree.delete(&before);
	return 0;
}

/* Raw tracepoint sched_process_exit: in the task, which still has its files to close. */
int tree_exit(struct bpf_raw_tracepoint_args *ctx)
{
	u64 tid = (u32)bpf_get_current_pid_tgid();
	u64 *state = tree.lookup(&tid);

	if (state)
		*state |= EXITS;
	return 0;
}
