/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* An event for each hit: at the entry with arguments, at a return with the result. */

static inline void on_hit(struct pt_regs *ctx, u64 slot, u32 cell)
{
	struct tally *tally = tally_of(slot);
	struct plan *plan = plan_of(slot);
	struct event *found;

	if (!plan || !tally)
		return;
	found = read_entry(ctx, plan, slot);
	if (!found)
		return;
	found->duration = 0;
	found->result = 0;
	if (plan->has_result)
		read_result(ctx, plan, found);
	if (!is_wanted(plan, found, plan->at_entry))
		tell(&tally->unwanted);
	else if (!is_within_budget(found->time))
		tell(&tally->limited);
	else
		emit(plan, found, tally);
}
