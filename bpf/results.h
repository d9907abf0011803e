/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which results are errors: that depends on the function's type. */

#define IS_NO_ERROR 0
#define IS_INT 1	/* an error is a negative int */
#define IS_LONG 2	/* a negative long, or an error pointer */
#define IS_UNKNOWN 3	/* the function's type is unknown: either of these */
#define MAX_ERRNO 4095

/* [slot]: one of these. */
BPF_ARRAY(results, u64, 1);

/* The error that a function returns, as a positive number; 0 if it returns none. */
static inline u32 error_of(struct pt_regs *ctx, u64 slot)
{
	u64 value = *(WORD *)((char *)ctx + RESULT_AT);
	u32 index = slot;
	u64 *kind = results.lookup(&index), error;

	if (!kind || *kind == IS_NO_ERROR)
		return 0;
	if (*kind != IS_INT) {
		error = sizeof(WORD) == 8 ? -value : (u32)-value;
		if (error && error <= MAX_ERRNO)
			return error;
	}
	if (*kind != IS_LONG) {
		error = (u32)-value;
		if (error && error <= MAX_ERRNO)
			return error;
	}
	return 0;
}
