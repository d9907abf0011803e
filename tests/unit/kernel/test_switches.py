# SPDX-License-Identifier: Apache-2.0
"""Switches that stop armed probes."""

from __future__ import annotations

from pathlib import Path

from batchprobe.kernel.switches import Switches

KPROBES = "sys/kernel/debug/kprobes/enabled"
FTRACE = "proc/sys/kernel/ftrace_enabled"


def put(root: Path, file: str, value: str) -> None:
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(value)


def test_each_time_a_switch_is_turned_off_is_reported_once(tmp_path: Path) -> None:
    switches = Switches(kprobes=True, ftrace=True, root=tmp_path)
    put(tmp_path, KPROBES, "1\n")
    put(tmp_path, FTRACE, "1\n")
    assert switches.turned_off() == []
    put(tmp_path, KPROBES, "0\n")
    (sentence,) = switches.turned_off()
    assert sentence.startswith("kprobes were disarmed")
    assert "echo 1 > /sys/kernel/debug/kprobes/enabled" in sentence
    assert switches.turned_off() == []
    put(tmp_path, FTRACE, "0\n")
    (sentence,) = switches.turned_off()
    assert "sysctl -w kernel.ftrace_enabled=1" in sentence
    put(tmp_path, KPROBES, "1\n")
    assert switches.turned_off() == []
    put(tmp_path, KPROBES, "0\n")
    assert len(switches.turned_off()) == 1


def test_only_what_stops_the_probes_is_watched(tmp_path: Path) -> None:
    put(tmp_path, KPROBES, "0\n")
    put(tmp_path, FTRACE, "0\n")
    assert Switches(kprobes=False, ftrace=False, root=tmp_path).turned_off() == []
    (sentence,) = Switches(kprobes=False, ftrace=True, root=tmp_path).turned_off()
    assert sentence.startswith("ftrace")


def test_switches_that_cannot_be_read_are_taken_as_on(tmp_path: Path) -> None:
    assert Switches(kprobes=True, ftrace=True, root=tmp_path).turned_off() == []
