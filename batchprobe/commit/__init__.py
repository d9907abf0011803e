"""The commit: probes that were detached separately leave the kernel together, after one barrier.

`queue` decides what is covered by which barrier, `barrier` waits, `rcu_expedited` makes the waits
short. May import `sys`, `arch`, `errors` and `_util`. What a probe or a kernel object is, this room
knows only as two protocols.
"""
