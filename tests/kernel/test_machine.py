# SPDX-License-Identifier: Apache-2.0
"""What the machine or the user lacks is reported in one line, with its remedy."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.command import Finished, Running, run
from helpers.machine import ABIS, in_namespace, setting
from helpers.traced import traced

from batchprobe import Session, UnsupportedError
from batchprobe.commit import barrier
from batchprobe.programs.shipped import COMPILE
from batchprobe.sys import libc

LIST = "vfs_read\n"
KPROBES_ENABLED = "/sys/kernel/debug/kprobes/enabled"
FTRACE_ENABLED = "/proc/sys/kernel/ftrace_enabled"


def check_unsupported(done: Finished, *words: str) -> None:
    assert done.status == 77, done
    assert not done.stdout
    (line,) = done.messages
    assert line.startswith("batchprobe: error: ")
    for word in words:
        assert word in line


@pytest.mark.one_kernel
def test_not_root() -> None:
    nobody = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
    check_unsupported(run("attach", "-", "-d", "1", stdin=LIST, before=nobody), "root")


@pytest.mark.one_kernel
def test_tracefs_not_mounted() -> None:
    hide = in_namespace(
        "umount /sys/kernel/tracing", "{ umount /sys/kernel/debug/tracing || :; } 2>/dev/null",
        "umount /sys/kernel/debug",
    )  # fmt: skip
    remedy = "mount -t tracefs nodev /sys/kernel/tracing"
    event = run("attach", "-", "-d", "1", "--abi", "event", stdin=LIST, before=hide)
    check_unsupported(event, remedy)


def compiling(folder: Path) -> dict[str, str]:
    """The environment of a run that has to compile: bytecode and cache are not used."""
    return {**os.environ, COMPILE: "1", "XDG_CACHE_HOME": str(folder)}


@pytest.mark.one_kernel
def test_missing_headers_are_reported(tmp_path: Path) -> None:
    release = os.uname().release
    build = Path(f"/lib/modules/{release}/build").resolve()
    hide = in_namespace(f"mount -t tmpfs none {build}")
    done = run("attach", "-", "-d", "1", stdin=LIST, before=hide, env=compiling(tmp_path))
    check_unsupported(done, f"linux-headers-{release}")
    # The shipped programs need no headers.
    assert run("attach", "-", "-d", "0", stdin=LIST, before=hide).status == 0


@pytest.mark.one_kernel
def test_missing_bcc_is_reported(tmp_path: Path) -> None:
    found = subprocess.run(
        (sys.executable, "-c", "import bcc; print(*bcc.__path__)"),
        capture_output=True,
        text=True,
        check=True,
    )
    # Python would take an empty folder for the package, so hide the folder that contains it.
    packages = Path(found.stdout.strip()).parent
    hide = in_namespace(f"mount -t tmpfs none {packages}")
    env = {**compiling(tmp_path), "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    done = run("attach", "-", "-d", "1", stdin=LIST, before=hide, env=env)
    check_unsupported(done, "python3-bpfcc")
    shipped = {name: text for name, text in env.items() if name != COMPILE}
    assert run("attach", "-", "-d", "0", stdin=LIST, before=hide, env=shipped).status == 0


@pytest.mark.one_kernel
def test_few_descriptors_are_reported_before_anything_is_done() -> None:
    few = ("prlimit", "--nofile=20")
    check_unsupported(run("attach", "-", "-d", "0", stdin=LIST, before=few), "ulimit -n", "only 20")
    # As few as are let through suffice.
    enough = ("prlimit", "--nofile=64")
    both = "vfs_read\nvfs_read%return\nvfs_read+0\nnot_yet_loaded:function\n"
    for abi in ("auto", "event"):
        done = run("attach", "-", "-d", "0", "--abi", abi, stdin=both, before=enough)
        assert done.status == 0, done


@pytest.mark.parametrize(
    ("file", "subject"),
    [(KPROBES_ENABLED, "kprobes are disarmed"), (FTRACE_ENABLED, "ftrace is off")],
)
def test_a_switch_that_is_off_is_named_with_its_remedy(file: str, subject: str) -> None:
    with setting(file, "0"):
        done = run("attach", "-", "-d", "0", stdin=LIST)
    check_unsupported(done, f"error: {subject}", "=1)" if "ftrace" in subject else "echo 1")


@pytest.mark.one_kernel
@pytest.mark.parametrize(
    ("file", "placement", "said"),
    [
        (KPROBES_ENABLED, "auto", "warning: kprobes were disarmed"),
        (FTRACE_ENABLED, "entry", "warning: ftrace was switched off"),
    ],
)
def test_a_switch_that_is_turned_off_during_the_run_is_reported(
    file: str, placement: str, said: str, tmp_path: Path
) -> None:
    few = tmp_path / "few"
    few.write_text(LIST)
    words = ("attach", few, "--json", "--abi", "event", "--placement", placement, "-i", "0.2")
    with Running(*words) as running:
        running.until_line("counts")
        with setting(file, "0"):
            running.until_stderr(said)
        # Not inside the block: Linux 6.1 warns in ftrace_shutdown(), and disables ftrace for good,
        # if a probe at the entry is removed while ftrace is off.
        running.signal(signal.SIGINT)
        done = running.finish()
    assert done.status == 0, done
    assert done.stderr.count(said) == 1


@pytest.mark.one_kernel
def test_a_switch_that_is_off_at_the_end_is_reported(tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.write_text(LIST)
    words = ("attach", few, "--json", "--abi", "event")
    with Running(*words) as running:
        running.until_defined(1)
        # The gates open some milliseconds later.
        time.sleep(2)
        with setting(KPROBES_ENABLED, "0"):
            running.signal(signal.SIGINT)
            done = running.finish()
    assert done.status == 0, done
    assert "warning: kprobes were disarmed" in done.stderr


@pytest.mark.skipif("multi" in ABIS, reason="this kernel has kprobe_multi links")
def test_multi_is_refused_where_the_kernel_lacks_it() -> None:
    check_unsupported(run("attach", "-", "--abi", "multi", stdin=LIST), "CONFIG_FPROBE", "5.18")
    # The library raises it before any probe is attached.
    with Session(abi="multi") as session:
        with pytest.raises(UnsupportedError, match="kprobe_multi"):
            session.attach(["vfs_read", "vfs_write%return"])
        assert session.probes == []


def test_waiting_through_a_map_waits_for_rcu() -> None:
    waits = ("synchronize_rcu", "synchronize_rcu_expedited")
    with traced(*waits) as calls:
        before = calls().total()
        barrier.wait_through_map()
        assert calls().total() > before


def test_membarrier_waits_for_rcu() -> None:
    with traced("synchronize_rcu", "synchronize_rcu_expedited") as calls:
        before = calls().total()
        libc.membarrier_global()
        assert calls().total() > before
