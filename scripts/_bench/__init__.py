# SPDX-License-Identifier: Apache-2.0
"""scripts/bench: batchprobe beside bcc, funccount and bpftrace on the same kernel, same functions.

`host` and what it imports run on the host, `guest` and what it imports in the guest.
"""
