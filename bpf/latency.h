/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How long calls take: calls.h says which entry a return belongs to. */

#define BUCKETS 40

/* Of one function, on CPUs whose numbers have the same last bits. actions/latency.py has the same. */
struct latency {
	u64 calls;
	u64 total;		/* ns */
	u64 self;		/* ns */
	u64 missed;		/* calls whose return was missed */
	u64 dropped;		/* calls for which there was no room */
	u64 histogram[BUCKETS];	/* [n]: calls of 2^n ns or more; the last one has no end */
};

/* [slot * (COPY_MASK + 1) + (cpu & COPY_MASK)] */
BPF_ARRAY(latencies, struct latency, 1);
/* [cpu * stride + slot]: ns of the longest call. */
BPF_ARRAY(longest, u64, 1);

static inline struct latency *latency_of(u64 slot)
{
	u64 mask = CONSTANT(COPY_MASK);
	u32 index = slot * (mask + 1) + (bpf_get_smp_processor_id() & mask);

	return latencies.lookup(&index);
}

static inline void missed_return(u64 slot)
{
	struct latency *latency = latency_of(slot);

	if (latency)
		__sync_fetch_and_add(&latency->missed, 1);
}

#define ON_HIT_ASKS_FOR_RETURN

static inline int on_hit(struct pt_regs *ctx, u64 slot, u32 cell)
{
	struct latency *latency;
	struct call *call;
	u64 at;

	call = push_call(ctx, slot, thread_key(), &at);
	if (call) {
		call->start = bpf_ktime_get_ns();
		return 1;
	}
	latency = latency_of(slot);
	if (latency)
		__sync_fetch_and_add(&latency->dropped, 1);
	return 0;
}

static inline void on_return(struct pt_regs *ctx, u64 slot, u32 cell)
{
	u64 now = bpf_ktime_get_ns(), at, spent, bucket;
	struct latency *latency;
	struct call *call;
	u64 *most;

	call = pop_call(ctx, slot, thread_key(), now, &at);
	if (!call)
		return;
	spent = since(call->start, now);
	latency = latency_of(slot);
	most = longest.lookup(&cell);
	if (!latency || !most)
		return;
	bucket = spent ? bpf_log2l(spent) - 1 : 0;
	if (bucket >= BUCKETS)
		bucket = BUCKETS - 1;
	__sync_fetch_and_add(&latency->calls, 1);
	__sync_fetch_and_add(&latency->total, spent);
	__sync_fetch_and_add(&latency->self, since(call->inner, spent));
	__sync_fetch_and_add(&latency->histogram[bucket], 1);
	if (*most < spent)
		*most = spent;
}
