# SPDX-License-Identifier: Apache-2.0
"""`batchprobe doctor`: what this machine offers, and what would help where it lacks something."""

from __future__ import annotations

from batchprobe.doctor import can_trace, examine
from batchprobe.errors import ExitStatus
from batchprobe.output.json_lines import record

__all__ = ["show_checks"]


def show_checks(*, as_json: bool) -> int:
    """Print all checks; returns the exit status."""
    checks = examine()
    width = max(len(check.name) for check in checks)
    for check in checks:
        if as_json:
            fields = {**check._asdict(), "status": check.status.value}
            print(record("check", fields), end="")
            continue
        print(f"{check.status.value:>7}  {check.name:<{width}}  {check.detail}")
        if check.remedy:
            print(f"{'':>7}  {'':<{width}}  -> {check.remedy}")
    return ExitStatus.OK if can_trace(checks) else ExitStatus.UNSUPPORTED
