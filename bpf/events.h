/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Records of hits or calls in a ring buffer, and what became of those that have none.
 * hit_events.h and call_events.h use it; actions/events.py reads it.
 */

/* What became of the hits of a slot. actions/events.py has the same order. */
struct tally {
	u64 emitted;
	u64 lost;		/* no room in the ring buffer */
	u64 unwanted;		/* by the condition */
	u64 limited;		/* by --limit or --rate */
	u64 missed;		/* calls whose return was missed */
	u64 dropped;		/* calls for which there was no room */
};
/* actions/events.py has the same. */
struct budget {
	u64 limit;		/* events; 0: no limit */
	u64 used;
	u64 rate;		/* events a second; 0: no limit */
	u64 second;
	u64 used_in_second;
};

BPF_RINGBUF_OUTPUT(ring, 1);
BPF_PERCPU_ARRAY(scratch, struct event, 1);
/* [slot] */
BPF_ARRAY(tallies, struct tally, 1);
/* [0]: shared by all kernel objects of the session. */
BPF_ARRAY(budget, struct budget, 1);

/* Without a wakeup, which would cost more than the record and hit functions that are traced. */
#define NO_WAKEUP 1

static inline void tell(u64 *count)
{
	__sync_fetch_and_add(count, 1);
}

static inline struct tally *tally_of(u64 slot)
{
	u32 index = slot;

	return tallies.lookup(&index);
}

/* Two CPUs that ask at once may both have the last one: the reader cuts what is over. */
static inline int is_within_budget(u64 now)
{
	u32 first = 0;
	struct budget *left;
	u64 second;

	left = budget.lookup(&first);
	if (!left || (!left->limit && !left->rate))
		return 1;
	if (left->limit && left->used >= left->limit)
		return 0;
	if (left->rate) {
		second = now / 1000000000;
		/* A CPU that read the clock before another one must not begin its second again. */
		if (left->second < second) {
			left->second = second;
			left->used_in_second = 0;
		}
		if (left->used_in_second >= left->rate)
			return 0;
		__sync_fetch_and_add(&left->used_in_second, 1);
	}
	__sync_fetch_and_add(&left->used, 1);
	return 1;
}

/* What was lost is no part of the limit. */
static inline void give_back(void)
{
	struct budget *left;
	u32 first = 0;

	left = budget.lookup(&first);
	if (left && left->limit)
		__sync_fetch_and_add(&left->used, -1);
}

/* `event` has what was read, and a call's result and duration. */
static inline void emit(struct plan *plan, struct event *event, struct tally *tally)
{
	u64 size = offsetof(struct event, value) + 8 * (u64)(plan->values & (VALUES - 1));

	if (event->texts) {
		size = event->text_used;
		if (size > TEXTS * TEXT_SIZE)
			size = TEXTS * TEXT_SIZE;
		size += offsetof(struct event, text);
	}
	if (ring.ringbuf_output(event, size, NO_WAKEUP)) {
		tell(&tally->lost);
		give_back();
	} else {
		tell(&tally->emitted);
	}
}

static inline struct event *read_entry(struct pt_regs *ctx, struct plan *plan, u64 slot)
{
	u64 ids = bpf_get_current_pid_tgid();
	struct event *to;
	u32 first = 0;

	to = scratch.lookup(&first);
	if (!to)
		return NULL;
	to->slot = slot;
	to->tid = ids;
	to->pid = ids >> 32;
	to->cpu = bpf_get_smp_processor_id();
	bpf_get_current_comm(to->comm, sizeof(to->comm));
	to->value[0] = *(WORD *)((char *)ctx + ARGUMENT_0_AT);
	to->value[1] = *(WORD *)((char *)ctx + ARGUMENT_1_AT);
	to->value[2] = *(WORD *)((char *)ctx + ARGUMENT_2_AT);
	to->value[3] = *(WORD *)((char *)ctx + ARGUMENT_3_AT);
	to->value[4] = *(WORD *)((char *)ctx + ARGUMENT_4_AT);
	to->value[5] = *(WORD *)((char *)ctx + ARGUMENT_5_AT);
	to->value[6] = *(WORD *)((char *)ctx + ARGUMENT_6_AT);
	to->value[7] = *(WORD *)((char *)ctx + ARGUMENT_7_AT);
	read_values(plan, to);
	to->time = bpf_ktime_get_ns();
	return to;
}
