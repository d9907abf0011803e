/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Forgets the open calls of a thread that is gone (latency.h), so that its ID can come again. */

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
