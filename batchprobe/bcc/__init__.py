# SPDX-License-Identifier: Apache-2.0
"""bcc scripts through the commit: their kprobes go into one kernel object, and off in one batch.

    import batchprobe.bcc

    batchprobe.bcc.install()
    from bcc import BPF
    ...

From `install` on, this process's kprobes of bcc (`attach_kprobe`, `attach_kretprobe`, `event_re`,
functions named `kprobe__*`) are carried by a Session. bcc raises what it always raises. Everything
that is no kprobe is bcc's business as before.

A kprobe is checked when bcc attaches it, and armed a little later, together with others: before the
script prints, sleeps, polls, reads a table or starts a process, and after 200 ms in which bcc
attached and detached nothing. `flush` arms at once. A detached kprobe's program runs no more from
the detach on; its kernel objects are removed at the next such moment.

`batchprobe run` does this for a tool that knows nothing of it.
"""

from batchprobe.bcc.installed import flush, install, uninstall

__all__ = ["flush", "install", "uninstall"]
