/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The stack of each hit. */

static inline void on_hit(struct pt_regs *ctx, u64 slot, u32 cell)
{
	struct stack_key key = {};

	if (take_stacks(ctx, slot, &key))
		add_to_stack(&key, 0);
	else
		lose_stack(slot);
}
