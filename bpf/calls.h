/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which entry a return belongs to: each thread has a stack of its open calls.
 *
 * An entry pushes a call, a return pops it. So nested and recursive calls are told apart, and the
 * time in traced functions that a call made is known. Interrupts nest within the thread that they
 * interrupt. A return that the kernel missed leaves its call on the stack, where the stack pointer
 * gives it away; such a call is counted as missed, and never gets another call's return.
 */

#define DEPTH 32
/* Makes what is added to the stack pointer a positive number. */
#define STACK_BIAS (1 << 20)
/* Kernel stacks are aligned to at least this, so within it two addresses are of one stack. */
#define STACK_SHIFT 13

struct call {
	u64 owner;		/* MAPS_ID and slot */
	u64 start;		/* ns */
	u64 inner;		/* ns in traced functions that it called */
	u64 stack;		/* stack pointer at the entry */
};
struct thread {
	u64 depth;
	struct call calls[DEPTH];
};

/* Thread ID -> its open calls; an idle task has none, its CPU stands for it. */
BPF_HASH(threads, u64, struct thread, 1);
/* [0]: a thread without calls, to be copied. */
BPF_ARRAY(no_calls, struct thread, 1);
/* [0]: STACK_MOVES as seen, where it is unknown. */
BPF_ARRAY(stack_moves, u64, 1);

/* An action counts a call of `slot` whose return was missed. */
static inline void missed_return(u64 slot);

static inline void missed(struct call *call)
{
	/* Another attachment's slot would be taken for one of ours. */
	if (call->owner >> 32 == CONSTANT(MAPS_ID))
		missed_return((u32)call->owner);
}

static inline u64 thread_key(void)
{
	u64 tid = (u32)bpf_get_current_pid_tgid();

	return tid ? tid : 1ULL << 32 | bpf_get_smp_processor_id();
}

/* The clock of one CPU may be some nanoseconds behind that of another. */
static inline u64 since(u64 start, u64 now)
{
	return now > start ? now - start : 0;
}

/* Whether a call has returned, now that its thread enters a function with this stack pointer. */
static inline int is_over(struct call *call, u64 stack, u64 owner)
{
	if ((call->stack ^ stack) >> STACK_SHIFT)
		return 0;
	/* A tail call has the caller's stack pointer. */
	return call->stack < stack || (call->stack == stack && call->owner == owner);
}

/* The caller sets its start. NULL if there is no room. */
static inline struct call *push_call(struct pt_regs *ctx, u64 slot, u64 key, u64 *at)
{
	u64 stack = *(WORD *)((char *)ctx + STACK_POINTER_AT);
	u64 owner = CONSTANT(MAPS_ID) << 32 | slot, depth, inner = 0;
	struct thread *thread = threads.lookup(&key), *none;
	struct call *call;
	u32 first = 0;

	if (!thread) {
		none = no_calls.lookup(&first);
		if (none)
			threads.insert(&key, none);
		thread = threads.lookup(&key);
	}
	depth = thread ? thread->depth : DEPTH;
	if (thread) {
		for (int i = 0; i < DEPTH; i++) {
			if (!depth)
				break;
			call = &thread->calls[(depth - 1) % DEPTH];
			if (!is_over(call, stack, owner))
				break;
			missed(call);
			inner += call->inner;
			depth--;
		}
		/* What a missed call called was called by its caller, too. */
		if (depth && inner)
			thread->calls[(depth - 1) % DEPTH].inner += inner;
	}
	if (!thread || depth >= DEPTH)
		return NULL;
	call = &thread->calls[depth % DEPTH];
	call->owner = owner;
	call->inner = 0;
	call->stack = stack;
	*at = depth;
	thread->depth = depth + 1;
	return call;
}

/* The call that returns; its caller is charged for it. NULL if its entry was not followed. */
static inline struct call *pop_call(struct pt_regs *ctx, u64 slot, u64 key, u64 now, u64 *was_at)
{
	u64 stack = *(WORD *)((char *)ctx + STACK_POINTER_AT);
	u64 owner = CONSTANT(MAPS_ID) << 32 | slot, depth, at, inner = 0;
	/* How far the stack pointer moves from entry to return, biased; 0 if that is unknown. */
	u64 moves = CONSTANT(STACK_MOVES);
	struct thread *thread = threads.lookup(&key);
	struct call *call;
	u32 first = 0;
	u64 *seen;

	if (!thread)
		return NULL;
	depth = at = thread->depth;
	for (int i = 0; i < DEPTH; i++) {
		if (!at)
			return NULL;
		call = &thread->calls[(at - 1) % DEPTH];
		if (call->owner == owner && (!moves || call->stack + moves - STACK_BIAS == stack))
			break;
		at--;
	}
	if (!at || depth > DEPTH)
		return NULL;
	/* A call above it can only be there still if its return was missed. */
	for (int i = 0; i < DEPTH; i++) {
		if (depth <= at)
			break;
		call = &thread->calls[(depth - 1) % DEPTH];
		missed(call);
		inner += call->inner;
		depth--;
	}
	call = &thread->calls[(at - 1) % DEPTH];
	if (call->owner != owner)
		return NULL;
	call->inner += inner;
	if (!moves) {
		seen = stack_moves.lookup(&first);
		if (seen)
			*seen = stack - call->stack + STACK_BIAS;
	}
	thread->depth = at - 1;
	if (at > 1)
		thread->calls[(at - 2) % DEPTH].inner += since(call->start, now);
	*was_at = at - 1;
	return call;
}
