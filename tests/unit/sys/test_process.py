# SPDX-License-Identifier: Apache-2.0
"""Owner: its group name, and when its process counts as dead."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchprobe.sys.process import Owner

NUMBERS = st.integers(min_value=0, max_value=2**64)


@given(NUMBERS, NUMBERS, NUMBERS)
def test_a_group_name_identifies_its_owner(pid: int, start: int, namespace: int) -> None:
    owner = Owner(pid, start, namespace)
    assert Owner.from_group(owner.group) == owner


@pytest.mark.parametrize(
    "group",
    ["kprobes", "batchprobe", "batchprobe_1_2", "batchprobe_1_2_3_4", "xbatchprobe_1_2_3",
     "batchprobe_1_2_3x", "batchprobe_-1_2_3", "batchprobe_1_2_x", ""],
)  # fmt: skip
def test_a_group_of_another_program_has_no_owner(group: str) -> None:
    assert Owner.from_group(group) is None


@pytest.fixture
def other() -> Iterator[tuple[Owner, subprocess.Popen[bytes]]]:
    """Another living process."""
    program = (
        "from batchprobe.sys.process import Owner;"
        "print(Owner.this_process().group, flush=True); input()"
    )
    with subprocess.Popen(
        (sys.executable, "-c", program), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        owner = Owner.from_group(process.stdout.readline().decode().strip())
        assert owner is not None
        yield owner, process
        if process.returncode is None:
            process.kill()


def test_a_process_is_dead_when_its_pid_is_gone_reused_or_a_zombie(
    other: tuple[Owner, subprocess.Popen[bytes]],
) -> None:
    owner, process = other
    assert owner.pid == process.pid
    assert not Owner.this_process().is_dead
    assert not owner.is_dead
    # Another process has its PID, and started later.
    assert Owner(owner.pid, owner.start + 1, owner.namespace).is_dead
    # In another PID namespace, which is empty: only the initial namespace can know that.
    elsewhere = Owner(owner.pid, owner.start, owner.namespace + 1)
    assert elsewhere.is_dead == (owner.namespace == 0xEFFFFFFC)
    process.kill()
    # A zombie until it is waited for: the kernel has released all it held.
    zombie = Path(f"/proc/{owner.pid}/stat")
    while zombie.read_text().rpartition(")")[2].split()[0] != "Z":
        pass
    assert owner.is_dead
    process.wait()
    assert owner.is_dead
