# SPDX-License-Identifier: Apache-2.0
"""Examines whether and how well batchprobe can trace on this machine: `batchprobe doctor`.

Checks that read files are in `batchprobe.kernel.host`. Those here try: they attach probes with the
code that a session uses, and wait for grace periods. May import all rooms from `attach` downwards.
"""

from batchprobe.doctor.checks import Check, can_trace, examine
from batchprobe.kernel.host import Status

__all__ = ["Check", "Status", "can_trace", "examine"]
