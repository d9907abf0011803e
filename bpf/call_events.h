/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* An event for each call, with its arguments, result and duration. It is made when the call returns. */

/* Thread key and depth of an open call -> what was read at its entry. threads.c forgets it. */
BPF_HASH(saved, u64, struct event, 1);

static inline u64 saved_key(u64 thread, u64 at)
{
	return thread * DEPTH + at;
}

static inline void missed_return(u64 slot)
{
	struct tally *tally = tally_of(slot);

	if (tally)
		tell(&tally->missed);
}

#define ON_HIT_ASKS_FOR_RETURN

static inline int on_hit(struct pt_regs *ctx, u64 slot, u32 cell)
{
	struct tally *tally = tally_of(slot);
	struct plan *plan = plan_of(slot);
	u64 thread = thread_key(), at, key;
	struct event *found;
	struct call *call;

	if (!plan || !tally)
		return 0;
	found = read_entry(ctx, plan, slot);
	if (!found)
		return 0;
	if (!is_wanted(plan, found, plan->at_entry)) {
		tell(&tally->unwanted);
		return 0;
	}
	call = push_call(ctx, slot, thread, &at);
	if (!call) {
		tell(&tally->dropped);
		return 0;
	}
	key = saved_key(thread, at);
	if (saved.update(&key, found)) {
		tell(&tally->dropped);
		/* Neither its return nor a search for missed ones shall find it. */
		call->owner = 0;
		return 0;
	}
	call->start = bpf_ktime_get_ns();
	return 1;
}

static inline void on_return(struct pt_regs *ctx, u64 slot, u32 cell)
{
	u64 now = bpf_ktime_get_ns(), thread = thread_key(), at, key;
	struct tally *tally = tally_of(slot);
	struct plan *plan = plan_of(slot);
	struct event *event;
	struct call *call;

	call = pop_call(ctx, slot, thread, now, &at);
	if (!call || !plan || !tally)
		return;
	key = saved_key(thread, at);
	event = saved.lookup(&key);
	if (!event)
		return;
	event->duration = since(call->start, now);
	event->value[DURATION] = event->duration;
	read_result(ctx, plan, event);
	if (!is_wanted(plan, event, plan->at_return))
		tell(&tally->unwanted);
	else if (!is_within_budget(now))
		tell(&tally->limited);
	else
		emit(plan, event, tally);
	saved.delete(&key);
}
