# SPDX-License-Identifier: Apache-2.0
"""`batchprobe attach` from the list to the summary."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.command import COMMAND, Running, run
from helpers.machine import ABIS, HANG_SECONDS, MACHINE, kernel_state, kinds

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "funcs.txt"

SUMMARY_KEYS = {
    "type", "schema", "kernel", "arch", "abi", "placement", "requested", "attached", "skipped",
    "hits", "missed", "attach_seconds", "commit",
}  # fmt: skip
COMMIT_KEYS = {
    "probes", "clean", "dirty", "barriers", "top_seconds", "barrier_seconds", "reclaim_seconds",
    "left",
}  # fmt: skip


def check_summary(summary: dict[str, Any]) -> None:
    assert summary.keys() >= SUMMARY_KEYS
    assert summary["commit"].keys() >= COMMIT_KEYS
    assert (summary["schema"], summary["kernel"]) == (1, os.uname().release)
    assert summary["arch"] == os.uname().machine
    assert summary["attached"] == len(summary["hits"]) == summary["commit"]["probes"]
    assert summary["requested"] == summary["attached"] + len(summary["skipped"])
    assert sum(summary["hits"].values()) > 0
    assert (summary["commit"]["barriers"], summary["commit"]["left"]) == (1, 0)
    assert summary["commit"]["clean"] + summary["commit"]["dirty"] == summary["attached"]
    assert summary["missed"] is None or summary["missed"] >= 0
    for key in ("top_seconds", "barrier_seconds", "reclaim_seconds"):
        assert summary["commit"][key] >= 0


def test_the_example_list_is_attached() -> None:
    before = kernel_state().expedited
    done = run("attach", EXAMPLE, "-d", "2", "--json")
    assert done.status == 0, done
    check_summary(done.summary)
    assert done.summary["attached"] > 50
    assert done.summary["abi"].split("+")[0] == sorted(ABIS[:1])[0]
    now = kernel_state()
    assert (now.events, now.expedited) == ((), before)


@pytest.mark.parametrize("abi", ABIS)
def test_lists_are_read_from_files_and_standard_input(abi: str, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("vfs_read # reading\n\nvfs_write\n")
    last = f"vfs_open{kinds(abi)[-1]}"
    second.write_text(f"!vfs_write\n{last}\n")
    done = run("attach", first, "-", second, "-d", "1", "--json", "--abi", abi, stdin="vfs_getattr")
    assert done.status == 0, done
    # An excluded function gets no probe, and is reported as skipped.
    assert set(done.summary["hits"]) == {"vfs_read", "vfs_getattr", last}
    assert [skip["entry"] for skip in done.summary["skipped"]] == ["vfs_write"]
    assert done.summary["abi"] == abi
    # Python and the shell often read files, but not always within this second.
    if sum(done.summary["hits"].values()):
        check_summary(done.summary)


def test_every_kind_of_bad_entry_is_reported_with_its_reason(tmp_path: Path) -> None:
    blacklisted = _blacklisted_function()
    bad = [
        ("getppid_nonsense", "unknown function"),
        ("vfs_raed", "similar names: vfs_read"),
        (blacklisted, "blacklisted by the kernel"),
        ("jiffies", _reason_for_data()),
        ("vfs_read+0x100000", "bad offset"),
        (f"vfs_write+{_inside_instruction()}", _BAD_BOUNDARY),
        ("no_such_module:*", "module not loaded"),
        ("zz_nothing_*", "no match"),
        ("/^zz_nothing/", "no match"),
        ("vfs_fsync", "excluded"),
        ("0x1000", "unknown function"),
        ("syscall:no_such_call", "unknown function"),
    ]
    lines = ["vfs_read", "!vfs_fsync", *(entry for entry, _ in bad)]
    file = tmp_path / "bad list"
    file.write_text("\n".join(lines))
    done = run("attach", file, "-d", "0", "--json", "--strict", "--abi", "event")
    assert done.status == 4, done
    assert set(done.summary["hits"]) == {"vfs_read"}
    skipped = done.summary["skipped"]
    reported = {skip["entry"]: skip for skip in skipped}
    for number, (entry, reason) in enumerate(bad, 3):
        assert reason in reported[entry]["reason"], reported[entry]
        assert (reported[entry]["file"], reported[entry]["line"]) == (str(file), number)
    assert len(skipped) == len(bad)
    # For people, the first of each reason.
    assert f"{file}:3: getppid_nonsense: {skipped[0]['reason']}" in done.stderr
    assert f"skipped {len(bad)}: " in done.stderr
    assert done.stderr.count(f"{file}:") < len(bad)


def _blacklisted_function() -> str:
    """A function on the kernel's blacklist."""
    for line in Path("/sys/kernel/debug/kprobes/blacklist").read_text().splitlines():
        name = line.split("\t")[1]
        if name in {"exc_int3", "notify_die", "get_kprobe", "kprobe_exceptions_notify"}:
            return name
    raise AssertionError("none of the expected functions is blacklisted")


# The reason for a site inside an instruction; on most architectures the kernel returns EINVAL.
_BAD_BOUNDARY = (
    "not an instruction boundary" if MACHINE in {"x86_64", "i686", "riscv64"} else "Invalid"
)


def _reason_for_data() -> str:
    """The reason depends on CONFIG_KALLSYMS_ALL, without which kallsyms has no data."""
    listed = " jiffies\n" in Path("/proc/kallsyms").read_text()
    return "not a function" if listed else "unknown function"


def _inside_instruction() -> int:
    """An offset inside the call or nop that every traceable function begins with."""
    return 1


@pytest.mark.one_kernel
def test_usage_errors_attach_nothing(tmp_path: Path) -> None:
    good, malformed, empty = tmp_path / "good", tmp_path / "malformed", tmp_path / "empty"
    good.write_text("vfs_read\n")
    malformed.write_text("vfs_read\nvfs write\n")
    empty.write_text("# nothing\n\n")
    cases: dict[tuple[str | Path, ...], str] = {
        (malformed,): f"{malformed}:2:4: ",
        (tmp_path / "absent",): "absent: No such file",
        (tmp_path,): "Is a directory",
        (empty,): "no function in it",
        (good, "-o", tmp_path / "no" / "where"): "cannot write",
        (good, "-c", "no-such-command --at all"): "no such command",
        (good, "-c", "'"): "-c",
        (good, "--abi", "best"): "--abi",
        (good, "--abi", "multi", "--placement", "after"): "stand at a function's entry",
        (good, "-d", "5x"): "not a time",
    }
    started = [(Running("attach", *arguments), words) for arguments, words in cases.items()]
    for running, words in started:
        with running:
            done = running.finish()
        assert done.status == 2, done
        assert words in done.stderr, done
        assert not done.stdout
        assert "Traceback" not in done.stderr


@pytest.mark.one_kernel
def test_nothing_to_attach_is_an_error() -> None:
    done = run("attach", "-", "--json", stdin="no_such_function\n")
    assert done.status == 3, done
    assert done.summary["attached"] == 0
    assert "no_such_function" in done.stderr
    skip, error = run("attach", "-", stdin="no_such_function\n").messages
    assert skip.startswith("batchprobe: skipped <stdin>:1: no_such_function: unknown function")
    assert error == "batchprobe: error: no entry of the list names a function to probe"


@pytest.mark.one_kernel
def test_a_command_that_outlives_the_duration_is_ended_with_a_word() -> None:
    done = run("attach", "-", "-d", "100ms", "-c", "sleep 1000", stdin="vfs_read\n")
    assert done.status == 128 + signal.SIGTERM, done
    assert "the 0.1 s of -d are over: batchprobe ends the command with SIGTERM" in done.stderr


@pytest.mark.one_kernel
def test_without_standard_error_it_just_runs() -> None:
    shell = ("sh", "-c", 'exec "$@" 2>&-', "sh")
    done = run("attach", "-", "-d", "0.2", "--json", stdin="syscall:getsid\n", before=shell)
    assert (done.status, done.stderr) == (0, ""), done
    assert done.summary["attached"] == 1


@pytest.mark.one_kernel
def test_without_standard_output_nothing_is_attached(tmp_path: Path) -> None:
    shell = ("sh", "-c", 'exec "$@" >&-', "sh")
    done = run("attach", "-", "-d", "0.2", stdin="syscall:getsid\n", before=shell)
    assert done.status == 2, done
    assert "standard output is closed: write the results to a file with -o FILE" in done.stderr
    out = tmp_path / "out"
    done = run("attach", "-", "-d", "0", "-o", out, stdin="syscall:getsid\n", before=shell)
    assert done.status == 0, done
    assert out.read_text() == "HITS  FUNCTION\n\n"


# Makes 1,000 calls that nothing else makes, slowly enough to fall into several intervals.
CALLER = """
import os, time
for _ in range(10):
    for _ in range(100):
        os.getsid(0)
    time.sleep(0.1)
"""


def caller(tmp_path: Path, end: str = "") -> str:
    script = tmp_path / "caller.py"
    script.write_text(CALLER + end)
    return f"{sys.executable} -I -S {script}"


@pytest.mark.one_kernel
def test_command_is_traced_from_its_first_call_to_its_last(tmp_path: Path) -> None:
    ends = {"raise SystemExit(9)": 9, "os.kill(os.getpid(), 15)": 128 + signal.SIGTERM}
    for end, status in ends.items():
        command = caller(tmp_path, end)
        done = run("attach", "-", "-c", command, "-i", "0.2", "--json", stdin="syscall:getsid")
        assert done.status == status, done
        assert done.summary["hits"] == {"syscall:getsid": 1000}
        *counts, final, _ = done.records
        assert final["type"] == "final"
        assert final["hits"] == done.summary["hits"]
        assert len(counts) > 1
        assert {record["type"] for record in counts} == {"counts"}
        seconds = [record["seconds"] for record in counts]
        assert seconds == sorted(seconds)
        # Hits of each interval. They add up to the total, except for hits after the last interval.
        parts = [record["hits"]["syscall:getsid"] for record in counts]
        assert all(part < 1000 for part in parts)
        assert 0 < sum(parts) <= 1000


@pytest.mark.one_kernel
def test_text_shows_the_most_hit(tmp_path: Path) -> None:
    out = tmp_path / "out"
    calls = "syscall:getsid\nsyscall:sched_yield\nsyscall:sched_getparam\nsyscall:getpgid"
    end = "os.sched_yield(), os.sched_yield(), os.getpgid(0)"
    done = run("attach", "-", "-c", caller(tmp_path, end), "--top", "2", "-o", out, stdin=calls)
    assert (done.status, done.stdout) == (0, ""), done
    assert [line.split() for line in out.read_text().splitlines()][:4] == [
        ["HITS", "FUNCTION"],
        ["1000", "syscall:getsid"],
        ["2", "syscall:sched_yield"],
        ["…", "1", "more"],
    ]
    assert "4 probes" in done.stderr
    assert "1003 hits, 1 function never called" in done.stderr
    assert "4 probes off with 1 barrier" in done.stderr


@pytest.mark.one_kernel
def test_a_reader_that_goes_away_keeps_no_probe_attached() -> None:
    """Results that cannot be written are lost, but the probes are removed."""
    process = subprocess.Popen(
        (*COMMAND, "attach", "-", "-i", "0.1", "--json"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if process.stdin is None or process.stdout is None or process.stderr is None:
        raise AssertionError("all three are pipes")
    process.stdin.write("vfs_read\nvfs_write\n")
    process.stdin.close()
    assert json.loads(process.stdout.readline())["type"] == "counts"
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(HANG_SECONDS) == 1
    assert "Broken pipe" in said
    assert "Traceback" not in said
    assert not kernel_state().events


@pytest.mark.one_kernel
@pytest.mark.parametrize("through", ["-o", "stdout"])
def test_a_full_disk_keeps_no_probe_attached(through: str) -> None:
    words = ("attach", "-", "-d", "0.2", "--json")
    if through == "-o":
        done = run(*words, "-o", "/dev/full", stdin="vfs_read")
    else:
        shell = ("sh", "-c", 'exec "$@" >/dev/full', "sh")
        done = run(*words, stdin="vfs_read", before=shell)
    assert done.status == 1, done
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    assert not kernel_state().events
