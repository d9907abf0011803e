/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Forgets the open calls of a thread that is gone (calls.h), so that its ID can come again. */

BPF_HASH(threads, u64, u64, 1);

/* Raw tracepoint sched_process_free: task. */
int thread_free(struct bpf_raw_tracepoint_args *ctx)
{
	u64 tid = pid_of(ctx->args[0]);

	threads.delete(&tid);
	return 0;
}

/* The same as a trace event, for kernels without BTF. */
int thread_free_event(void *ctx)
{
	u64 tid = *(u32 *)((char *)ctx + FIELD_AT);

	threads.delete(&tid);
	return 0;
}

static inline void move_calls(u64 before, u64 tid)
{
	u64 *calls = threads.lookup(&before);

	if (calls)
		threads.update(&tid, calls);
	threads.delete(&before);
}

/* Raw tracepoint sched_process_exec: task, its thread ID before. In the task: a thread that is not
 * the leader takes over the leader's ID, and has its own open calls under the old one. */
int thread_exec(struct bpf_raw_tracepoint_args *ctx)
{
	u64 tid = (u32)bpf_get_current_pid_tgid(), before = (u32)ctx->args[1];

	if (before == tid)
		return 0;
	/* The leader's, which is gone. */
	threads.delete(&tid);
	move_calls(before, tid);
	return 0;
}

/* Thread key and depth of an open call -> what was read at its entry (call_events.h). */
BPF_HASH(saved, u64, u64, 1);
#define DEPTH 32

static inline void forget_calls(u64 tid)
{
	u64 key;

	if (!threads.lookup(&tid))
		return;
	/* Calls above its depth may have been saved too, if their returns were missed. */
	for (u64 at = 0; at < DEPTH; at++) {
		key = tid * DEPTH + at;
		saved.delete(&key);
	}
	threads.delete(&tid);
}

/* As thread_exec, where entries are saved. */
int saved_exec(struct bpf_raw_tracepoint_args *ctx)
{
	u64 tid = (u32)bpf_get_current_pid_tgid(), before = (u32)ctx->args[1], from, to;
	u64 *call;

	if (before == tid)
		return 0;
	forget_calls(tid);
	for (u64 at = 0; at < DEPTH; at++) {
		from = before * DEPTH + at;
		to = tid * DEPTH + at;
		call = saved.lookup(&from);
		if (!call)
			continue;
		saved.update(&to, call);
		saved.delete(&from);
	}
	move_calls(before, tid);
	return 0;
}

/* As thread_free, where entries are saved. */
int saved_free(struct bpf_raw_tracepoint_args *ctx)
{
	forget_calls(pid_of(ctx->args[0]));
	return 0;
}

int saved_free_event(void *ctx)
{
	forget_calls(*(u32 *)((char *)ctx + FIELD_AT));
	return 0;
}
