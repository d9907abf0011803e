/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Stacks of callers, each stored once under a hash of 64 bits. bpf_get_stackid() has 32, and drops a
 * stack whose bucket is taken.
 */

#define FRAMES 127

struct stack {
	u64 frames;
	u64 ip[FRAMES];
};
/* actions/stacks.py has the same. */
struct stack_key {
	u64 kernel;		/* a key of stacks; 0: none */
	u64 user;
	u32 slot;
	u32 pid;
	u32 error;
	u32 unused;
	char comm[16];
};
struct stack_sum {
	u64 calls;
	u64 time;		/* ns */
};

BPF_PERCPU_ARRAY(stack_scratch, struct stack, 1);
BPF_HASH(stacks, u64, struct stack, 1);
BPF_HASH(stack_sums, struct stack_key, struct stack_sum, 1);
/* [slot]: calls for which there was no room. */
BPF_ARRAY(stacks_lost, u64, 1);

static inline void lose_stack(u64 slot)
{
	u32 index = slot;
	u64 *lost = stacks_lost.lookup(&index);

	if (lost)
		__sync_fetch_and_add(lost, 1);
}

/* The key of the stack now; 0 if there is none, and *lost if there was no room. */
static inline u64 stack_now(struct pt_regs *ctx, u64 flags, int *lost)
{
	u64 hash = 0xcbf29ce484222325ULL;
	struct stack *now;
	u32 first = 0;
	long size;

	now = stack_scratch.lookup(&first);
	if (!now)
		return 0;
	size = bpf_get_stack(ctx, now->ip, sizeof(now->ip), flags);
	if (size <= 0)
		return 0;
	now->frames = size / 8;
	for (u32 i = 0; i < FRAMES; i++) {
		if (i >= now->frames)
			break;
		hash = (hash ^ now->ip[i]) * 0x100000001b3ULL;
		hash ^= hash >> 29;
	}
	if (!hash)
		hash = 1;
	if (!stacks.lookup(&hash) && stacks.update(&hash, now)) {
		*lost = 1;
		return 0;
	}
	return hash;
}

/* Whether there was room for the stacks. */
static inline int take_stacks(struct pt_regs *ctx, u64 slot, struct stack_key *key)
{
	int lost = 0;

	key->slot = slot;
	key->kernel = stack_now(ctx, 0, &lost);
	if (CONSTANT(USER_STACKS)) {
		key->user = stack_now(ctx, BPF_F_USER_STACK, &lost);
		key->pid = bpf_get_current_pid_tgid() >> 32;
		bpf_get_current_comm(key->comm, sizeof(key->comm));
	}
	return !lost;
}

static inline void add_to_stack(struct stack_key *key, u64 time)
{
	struct stack_sum *sum = stack_sums.lookup(key), none = {};

	if (!sum) {
		stack_sums.insert(key, &none);
		sum = stack_sums.lookup(key);
	}
	if (!sum) {
		lose_stack(key->slot);
		return;
	}
	__sync_fetch_and_add(&sum->calls, 1);
	/* Of an addition of 0 clang makes an instruction that only Linux 5.12 has. */
	if (time)
		__sync_fetch_and_add(&sum->time, time);
}
