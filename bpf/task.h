/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The thread ID of a task_struct. */
static inline u64 pid_of(u64 task)
{
	u32 pid = 0;

	bpf_probe_read_kernel(&pid, sizeof(pid), (void *)(task + CONSTANT(TASK_PID_AT)));
	return pid;
}
