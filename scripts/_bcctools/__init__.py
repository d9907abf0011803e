# SPDX-License-Identifier: Apache-2.0
"""scripts/bcc-tools: Debian's bcc tools, without and with batchprobe.

`main` and what it imports run on the host, `guest` and `workload` in the guest.
"""
