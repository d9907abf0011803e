/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The stack at the entry of each call, weighted with the time in it; or of the calls that fail. At a
 * return it is too late: links had no stack there until 2026.
 */

/* Thread key and depth of an open call -> its stack. threads.c forgets it. */
BPF_HASH(saved, u64, struct stack_key, 1);

static inline void missed_return(u64 slot)
{
	lose_stack(slot);
}

#define ON_HIT_ASKS_FOR_RETURN

static inline int on_hit(struct pt_regs *ctx, u64 slot, u32 cell)
{
	u64 thread = thread_key(), at, saved_at;
	struct stack_key key = {};
	struct call *call;

	if (!take_stacks(ctx, slot, &key)) {
		lose_stack(slot);
		return 0;
	}
	call = push_call(ctx, slot, thread, &at);
	if (!call) {
		lose_stack(slot);
		return 0;
	}
	saved_at = thread * DEPTH + at;
	if (saved.update(&saved_at, &key)) {
		lose_stack(slot);
		/* Neither its return nor a search for missed ones shall find it. */
		call->owner = 0;
		return 0;
	}
	call->start = bpf_ktime_get_ns();
	return 1;
}

static inline void on_return(struct pt_regs *ctx, u64 slot, u32 cell)
{
	u64 now = bpf_ktime_get_ns(), thread = thread_key(), at, saved_at;
	struct stack_key *key;
	struct call *call;

	call = pop_call(ctx, slot, thread, now, &at);
	if (!call)
		return;
	saved_at = thread * DEPTH + at;
	key = saved.lookup(&saved_at);
	if (!key)
		return;
	key->error = error_of(ctx, slot);
	if (!CONSTANT(ONLY_ERRORS) || key->error)
		add_to_stack(key, now - call->start - call->inner);
	saved.delete(&saved_at);
}
