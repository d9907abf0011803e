# SPDX-License-Identifier: Apache-2.0
"""The commit: probes that were detached separately leave the kernel together, after one barrier.

`queue` forms the batches, `barrier` waits for the grace period, `rcu_expedited` shortens grace
periods. Probes and kernel objects are known here only by the protocols `Item` and `Reclaimable`.
May import `sys`, `arch`, `errors` and `_util`.
"""
