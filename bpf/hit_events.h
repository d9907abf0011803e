/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* An event for each hit: at the entry with arguments, at a return with the result. */

static inline void on_hit(struct pt_regs *ctx, u64 slot, u32 cell)
{
	struct tally *tally = tally_of(slot);
	struct plan *plan = plan_of(slot);
	struct scratch *found;

	if (!plan || !tally)
		return;
	found = read_entry(ctx, plan, slot);
	if (!found)
		return;
	found->event.duration = 0;
	found->event.result = 0;
	if (plan->has_result)
		read_result(ctx, plan, &found->event);
	if (!is_wanted(plan, &found->event, plan->at_entry))
		tell(&tally->unwanted);
	else if (!is_within_budget(found->event.time))
		tell(&tally->limited);
	else
		emit(plan, &found->event, tally);
}
