/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Errors that functions return, by number, with the task that got the last one: actions/errors.py. */

struct failure {
	u64 count;
	u64 ids;
	char comm[16];
};
/* Slot << 32 | error -> */
BPF_HASH(failures, u64, struct failure, 1);
/* [slot]: errors for which there was no room. */
BPF_ARRAY(failures_lost, u64, 1);

static inline void on_hit(struct pt_regs *ctx, u64 slot, u32 cell)
{
	u32 error = error_of(ctx, slot), index = slot;
	u64 key = slot << 32 | error, *lost;
	struct failure none = {}, *found;

	if (!error)
		return;
	found = failures.lookup(&key);
	if (!found) {
		failures.insert(&key, &none);
		found = failures.lookup(&key);
	}
	if (!found) {
		lost = failures_lost.lookup(&index);
		if (lost)
			__sync_fetch_and_add(lost, 1);
		return;
	}
	__sync_fetch_and_add(&found->count, 1);
	found->ids = bpf_get_current_pid_tgid();
	bpf_get_current_comm(found->comm, sizeof(found->comm));
}
