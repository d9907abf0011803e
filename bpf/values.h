/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What is read at a hit, and whether it is wanted. Each slot has a plan, which actions/plan.py makes
 * from the types of its function; so one program serves all functions, and none is compiled.
 */

#define STEPS 24
#define COMPARISONS 16
#define REGISTERS 8	/* how many arguments can be in */
/* The last two are the result and the duration. */
#define VALUES 16
#define RESULT 14
#define DURATION 15
#define MAX_SHOWN 12
#define TEXTS 4
#define TEXT_SIZE 64

/* Bits of step.flags. */
#define STEP_KEEP 1	/* the value is values[to] */
#define STEP_SIGNED 2
#define STEP_SWAP 4	/* its bytes are in network order */
#define STEP_TEXT 8	/* read the text at the value */
#define STEP_USER 16	/* which is user space's */
/* step.from: the value of the last step. */
#define STEP_PREVIOUS 0xff

/* (base + offset), or what is in memory there. */
struct step {
	s32 offset;
	u8 from;		/* the number of the value that is the base */
	u8 size;		/* bytes to read; 0: read nothing */
	u8 to;
	u8 flags;
	u8 left, right;		/* shifts, which cut a bit field out and extend its sign */
	u8 unused[6];
};
#define ACCEPT 0xff
#define REJECT 0xfe
#define IS_EQUAL 0
#define IS_BELOW 1
#define IS_BELOW_OR_EQUAL 2
#define IS_LESS 3
#define IS_LESS_OR_EQUAL 4
struct comparison {
	u64 mask;
	u64 constant;
	u8 value;
	u8 operation;
	u8 on_true, on_false;	/* the next comparison, which has a larger number, or a verdict */
	u8 unused[4];
};
struct plan {
	u8 steps;
	u8 values;		/* how many an event has */
	u8 at_entry, at_return;	/* the first comparison, or ACCEPT */
	u8 has_result;		/* the probe stands at a return */
	u8 result_left, result_right, result_flags;
	struct step step[STEPS];
	struct comparison comparison[COMPARISONS];
};
/* What was read. It is also the record of a hit; actions/event_records.py has the same. */
struct event {
	u64 time;		/* bpf_ktime_get_ns() at the entry */
	u64 duration;		/* ns, of a call */
	u64 result;		/* of a call */
	u32 slot;
	u32 tid;
	u32 pid;
	u16 cpu;
	u16 failed;		/* bits: values in memory that could not be read */
	u8 text_size[TEXTS];	/* with the NUL; 0: could not be read */
	u16 text_used;
	u8 texts;
	u8 unused;
	char comm[16];
	u64 value[VALUES];	/* arguments in registers first, as they are */
	char text[(TEXTS + 1) * TEXT_SIZE];
};

/* [slot] */
BPF_ARRAY(plans, struct plan, 1);

static inline struct plan *plan_of(u64 slot)
{
	u32 index = slot;

	return plans.lookup(&index);
}

static inline u64 shifted(u64 value, u32 left, u32 right, u32 flags)
{
	value <<= left & 63;
	return flags & STEP_SIGNED ? (u64)((s64)value >> (right & 63)) : value >> (right & 63);
}

/* The bytes of a value of `size` in memory, as a number. */
static inline u64 loaded(u64 address, u32 size, u64 *bad)
{
	u64 value = 0;

	size &= 15;
	if (size > 8)
		size = 8;
	if (bpf_probe_read_kernel(&value, size, (void *)(WORD)address))
		*bad = 1;
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	if (size)
		value >>= 64 - 8 * size;
#endif
	return value;
}

static inline void read_text(struct event *to, u64 address, u32 flags)
{
	u64 at = to->texts, used = to->text_used;
	long size = -1;

	if (at >= TEXTS || used > TEXTS * TEXT_SIZE)
		return;
	/* Most pointers to text are the kernel's. */
	if (!(flags & STEP_USER))
		size = bpf_probe_read_kernel_str(&to->text[used], TEXT_SIZE,
						 (void *)(WORD)address);
	if (size < 0)
		size = bpf_probe_read_user_str(&to->text[used], TEXT_SIZE, (void *)(WORD)address);
	if (size < 0 || size > TEXT_SIZE)
		size = 0;
	to->text_size[at & (TEXTS - 1)] = size;
	to->text_used = used + size;
	to->texts = at + 1;
}

/* Read what the plan wants at the entry beside the registers, which are the first values. */
static inline void read_values(struct plan *plan, struct event *to)
{
	u64 value = 0, kept, bad = 0;

	to->failed = to->texts = to->text_used = 0;
	for (u32 i = 0; i < STEPS; i++) {
		struct step *step = &plan->step[i];
		u32 size, flags;

		if (i >= plan->steps)
			break;
		if (step->from != STEP_PREVIOUS) {
			value = to->value[step->from & (VALUES - 1)];
			bad = 0;
		}
		value += (s64)step->offset;
		size = step->size;
		if (size)
			value = loaded(value, size, &bad);
		flags = step->flags;
		if (flags & STEP_TEXT)
			read_text(to, value, flags);
		if (flags & STEP_KEEP) {
			kept = value;
			if (flags & STEP_SWAP)
				kept = __builtin_bswap64(kept);
			to->value[step->to & (VALUES - 1)] =
				shifted(kept, step->left, step->right, flags);
			if (bad)
				to->failed |= 1 << (step->to & (VALUES - 1));
		}
	}
}

static inline void read_result(struct pt_regs *ctx, struct plan *plan, struct event *to)
{
	u64 value = *(WORD *)((char *)ctx + RESULT_AT);

	to->result = shifted(value, plan->result_left, plan->result_right, plan->result_flags);
	to->value[RESULT] = to->result;
}

/* Follow the comparisons from number `at` to their verdict. */
static inline int is_wanted(struct plan *plan, struct event *event, u32 at)
{
	for (u32 i = 0; i < COMPARISONS; i++) {
		struct comparison *one;
		u64 value, constant;
		u32 number;
		int holds;

		if (at >= COMPARISONS)
			break;
		one = &plan->comparison[at & (COMPARISONS - 1)];
		number = one->value & (VALUES - 1);
		/* What could not be read is not what anybody looks for. */
		if (event->failed >> number & 1)
			return 0;
		value = event->value[number] & one->mask;
		constant = one->constant;
		switch (one->operation) {
		case IS_EQUAL:
			holds = value == constant;
			break;
		case IS_BELOW:
			holds = value < constant;
			break;
		case IS_BELOW_OR_EQUAL:
			holds = value <= constant;
			break;
		case IS_LESS:
			holds = (s64)value < (s64)constant;
			break;
		default:
			holds = (s64)value <= (s64)constant;
		}
		at = holds ? one->on_true : one->on_false;
	}
	return at == ACCEPT;
}
