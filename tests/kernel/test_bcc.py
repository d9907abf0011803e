# SPDX-License-Identifier: Apache-2.0
"""bcc scripts through the commit: they do what they do without it, and leave nothing."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.command import COMMAND, Finished, Running, run, run_script
from helpers.figures import report_figure
from helpers.machine import (
    ABIS,
    BCC_COMPILES,
    GUARDIAN,
    HANG_SECONDS,
    PREFIX,
    eventually,
    our_events,
    our_processes,
)
from helpers.tree import CALLS, SCRIPT
from helpers.workers import Worker

import batchprobe

pytestmark = pytest.mark.skipif(not BCC_COMPILES, reason="no working bcc here")

PYTHON = "/usr/bin/python3"
LAUNCHER = str(Path(batchprobe.__file__).parent / "bcc" / "launcher.py")

# Says everything that a script can see of its kprobes, in an order that does not change.
STORY = f"""#!{PYTHON}
import os, subprocess, sys, threading
from bcc import BPF

b = BPF(text=b'''
#include <uapi/linux/ptrace.h>
BPF_ARRAY(runs, u64, 8);
int first(struct pt_regs *ctx) {{ runs.increment(0); return 0; }}
int second(struct pt_regs *ctx) {{ runs.increment(1); return 0; }}
int returned(struct pt_regs *ctx) {{ if (PT_REGS_RC(ctx)) runs.increment(2); return 0; }}
int kprobe__do_nanosleep(struct pt_regs *ctx) {{ runs.increment(3); return 0; }}
''')
sid, pgid = b.get_syscall_fnname(b"getsid"), b.get_syscall_fnname(b"getpgid")

def calls(number):
    for _ in range(number):
        os.getsid(0)
        os.getpgid(0)

def say(*what):
    print(*what, [b[b"runs"][at].value for at in range(3)], b.num_open_kprobes())
    b[b"runs"].clear()

say("attached nothing")
b.attach_kprobe(event=sid, fn_name=b"first")
say("attached first")
calls(10)
say("first")
b.attach_kprobe(event=sid, fn_name=b"second")
b.attach_kprobe(event=pgid, fn_name=b"second")
b.attach_kretprobe(event=sid, fn_name=b"returned")
say("attached all")
calls(10)
say("all")
for attach in (b.attach_kprobe, b.attach_kretprobe):
    try:
        attach(event=b"no_such_function", fn_name=b"first")
    except Exception as error:
        print(type(error).__name__, error)
try:
    b.attach_kprobe(event=sid, fn_name=b"no_such_program")
except Exception as error:
    print(type(error).__name__, error)
b.detach_kprobe(sid, b"first")
calls(10)
say("detached one")
print(subprocess.run([sys.executable, "-c", "import os; [os.getpgid(0) for _ in range(5)]"]))
say("child")
if not os.fork():
    b.cleanup()
    os._exit(0)
os.wait()
calls(10)
say("after a fork")
thread = threading.Thread(target=lambda: b.attach_kprobe(event=pgid, fn_name=b"first"))
thread.start()
thread.join()
print("attached by a thread")
calls(10)
say("thread")
b.detach_kretprobe(sid)
b.attach_kretprobe(event=sid, fn_name=b"returned", maxactive=7)
print("with maxactive")
calls(10)
say("maxactive")
print(sys.argv, open("/proc/self/comm").read().strip(), __name__, sys.path[0])
b.cleanup()
calls(10)
sys.exit(3)
"""
LOOP = f"""#!{PYTHON}
import sys, time
from bcc import BPF
b = BPF(text=b'''
BPF_ARRAY(runs, u64, 1);
int count(void *ctx) {{ runs.increment(0); return 0; }}
''')
b.attach_kprobe(event_re=b"^vfs_[a-r].*", fn_name=b"count")
try:
    print('{{"type":"counts"}}', flush=True)
    while True:
        time.sleep(60)
except KeyboardInterrupt:
    print(b[b"runs"][0].value > 0, flush=True)
"""
# The thread that arms after a while has begun, and takes a second.
ARMING = f"""#!{PYTHON}
import sys, threading
from bcc import BPF
from batchprobe.bcc.session import ToolSession

begun, armed = threading.Event(), []
attach = ToolSession.attach

def slowly(self, *entries, **options):
    begun.set()
    threading.Event().wait(1)
    probes = attach(self, *entries, **options)
    armed.append(len(probes))
    return probes

ToolSession.attach = slowly
b = BPF(text=b"int nothing(void *ctx) {{ return 0; }}")
if sys.argv[1] == "exit":
    # With this the session has something to remove, and closes itself at the exit.
    try:
        b.attach_kprobe(event=sys.argv[2].encode(), fn_name=b"nothing")
    except Exception:
        pass
b.attach_kprobe(event=b.get_syscall_fnname(b"getsid"), fn_name=b"nothing")
begun.wait()
if sys.argv[1] == "print":
    print("a line")
    print(armed)
"""


@pytest.fixture
def story(tmp_path: Path) -> Path:
    return _script(tmp_path / "story", STORY)


@pytest.fixture
def loop(tmp_path: Path) -> Path:
    return _script(tmp_path / "loop", LOOP)


def _script(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def plain(*command: str | Path) -> Finished:
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def test_a_script_sees_what_it_sees_without_us(story: Path) -> None:
    without = plain(story, "x", "--json")
    assert without.status == 3, without
    for abi in ABIS:
        done = run("run", "--abi", abi, story, "x", "--json")
        assert (done.stdout, done.status) == (without.stdout, without.status), done
        *_, last = done.stderr.splitlines()
        assert last.startswith("batchprobe: 6 probes, "), done
        assert "left to bcc: maxactive" in last
        # What bcc says of the functions that do not exist.
        assert done.stderr.splitlines()[:-1] == without.stderr.splitlines()


@pytest.mark.one_kernel
def test_without_the_package_on_the_path(story: Path) -> None:
    """As installed: the tool's Python does not know batchprobe, and need not."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = (PYTHON, LAUNCHER, "auto", "auto", "auto", "quiet", "", str(story))
    done = subprocess.run(words, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 3, done
    assert "batchprobe" not in done.stderr


def test_ctrl_c_is_the_tools(loop: Path) -> None:
    with Running("run", loop, command=COMMAND) as running:
        running.until_line("counts")
        run("functions", "vfs_read")
        running.signal(signal.SIGINT)
        done = running.finish()
    assert done.status == 0, done
    assert done.stdout.splitlines()[-1] == "True"
    probes, objects, barriers, *_ = done.stderr.splitlines()[-1].split(", ")
    assert (objects, barriers) == ("1 kernel object", "1 barrier"), done
    assert int(probes.split()[1]) > 20


def test_a_line_waits_for_the_thread_that_arms(tmp_path: Path) -> None:
    done = run("run", _script(tmp_path / "arming", ARMING), "print")
    assert done.stdout.splitlines() == ["a line", "[1]"], done
    assert done.stderr.startswith("batchprobe: 1 probe, 1 kernel object, 1 barrier, "), done


def test_an_exit_while_a_thread_arms_leaves_nothing_to_bcc(tmp_path: Path) -> None:
    blacklist = Path("/sys/kernel/debug/kprobes/blacklist").read_text().splitlines()
    refused = next(line.split()[-1] for line in blacklist)
    done = run("run", _script(tmp_path / "arming", ARMING), "exit", refused)
    assert done.status == 0, done
    assert done.stderr.splitlines()[-1] == "batchprobe: nothing to batch", done


@pytest.mark.one_kernel
def test_an_error_of_the_tool_is_shown_as_without_us(tmp_path: Path) -> None:
    script = _script(tmp_path / "wrong", f"#!{PYTHON}\nraise ValueError('of the tool')\n")
    without = plain(script)
    done = run("run", script)
    assert (done.status, done.stdout) == (without.status, without.stdout) == (1, "")
    assert done.stderr.splitlines() == without.stderr.splitlines()


@pytest.mark.one_kernel
def test_what_is_no_tool(tmp_path: Path) -> None:
    for text, wrong in (("", "names no interpreter"), ("#!/bin/sh\n", "one of /bin/sh")):
        done = run("run", _script(tmp_path / "other", text))
        assert (done.status, done.stdout) == (2, ""), done
        assert wrong in done.stderr
    done = run("run", "--abi", "multi", "--placement", "after", "funccount", "vfs_read")
    assert done.status == 2, done
    assert "stand at a function's entry" in done.stderr
    done = run("run", "no-such-tool")
    assert done.status == 2, done
    assert "bpfcc-tools" in done.stderr


def test_a_tool_of_the_distribution() -> None:
    """Each function has a program of its own; the tool's name without Debian's ending will do."""
    done = run("run", "funccount", "-d", "1", "vfs_*read*")
    assert done.status == 0, done
    assert "vfs_read" in done.stdout
    assert "1 kernel object, 1 barrier" in done.stderr


@pytest.mark.one_kernel
def test_a_tool_sees_the_hits_of_one_process(workers: list[Worker]) -> None:
    """All of them, and none of a neighbour that makes the same calls."""
    one, neighbour = workers
    function = f"{PREFIX}getsid"
    words = ("run", "-p", str(one.pid), "funccount", function)
    neighbour.begin(["getsid"])
    try:
        with Running(*words, env={**os.environ, "PYTHONUNBUFFERED": "1"}) as running:
            # Printed when its kprobes are armed.
            running.until_stdout("Hit Ctrl-C to end")
            neighbour.reach(10)
            one.call(["getsid"], 100)
            neighbour.reach(10)
            running.signal(signal.SIGINT)
            done = running.finish()
    finally:
        neighbour.end()
    assert done.status == 0, done
    rows = [line.split() for line in done.stdout.splitlines()]
    (row,) = (row for row in rows if len(row) == 2 and function in row[0])
    assert row[1] == "100", done
    *_, last = done.stderr.splitlines()
    assert last.startswith("batchprobe: 1 probe, 1 kernel object, 1 barrier, "), done
    assert "unfiltered" not in last


# Says what its kprobes saw of the hits, and has a tracepoint too.
SCOPED = f"""#!{PYTHON}
import time
from bcc import BPF
b = BPF(text=b'''
BPF_ARRAY(runs, u64, 2);
int entered(void *ctx) {{ runs.increment(0); return 0; }}
int returned(void *ctx) {{ runs.increment(1); return 0; }}
int nothing(void *ctx) {{ return 0; }}
''')
sid = b.get_syscall_fnname(b"getsid")
b.attach_raw_tracepoint(tp=b"sched_process_exit", fn_name=b"nothing")
b.attach_kprobe(event=sid, fn_name=b"entered")
b.attach_kretprobe(event=sid, fn_name=b"returned")
try:
    print('{{"type":"counts"}}', flush=True)
    time.sleep(1000)
except KeyboardInterrupt:
    print([b[b"runs"][at].value for at in range(2)], flush=True)
"""


def test_a_script_sees_a_process_with_its_descendants(
    tmp_path: Path, workers: list[Worker]
) -> None:
    tree = (sys.executable, SCRIPT, "wait")
    script = _script(tmp_path / "scoped", SCOPED)
    neighbour = workers[1]
    neighbour.begin(["getsid"])
    try:
        with subprocess.Popen(tree, stdin=subprocess.PIPE) as parent:
            words = ("run", "-p", str(parent.pid), "--children", script)
            with Running(*words) as running:
                running.until_line("counts")
                parent.communicate(b"\n", HANG_SECONDS)
                # The tool goes on without the process.
                neighbour.reach(10)
                running.signal(signal.SIGINT)
                done = running.finish()
    finally:
        neighbour.end()
    assert done.status == 0, done
    assert done.stdout.splitlines()[-1] == str([CALLS, CALLS]), done
    assert done.stderr.splitlines()[-1].endswith("; unfiltered: 1 tracepoint"), done


@pytest.mark.one_kernel
def test_a_scope_that_cannot_be_meant_runs_no_tool() -> None:
    for words, wrong in (
        (("-p", "999999999"), "no such process"),
        (("--children",), "whose?"),
        (("--cgroup", "/proc"), "is no cgroup"),
        (("--unit", "absent"), "no running unit"),
    ):
        done = run("run", *words, "funccount", "vfs_read")
        assert (done.status, done.stdout) == (2, ""), done
        assert wrong in done.stderr


INSTALLED = """
import os
import batchprobe.bcc
from batchprobe import SessionError

batchprobe.bcc.install(barrier="normal")
try:
    batchprobe.bcc.install()
except SessionError as error:
    print(error)
from bcc import BPF, lib
b = BPF(text=b'''
BPF_ARRAY(runs, u64, 1);
int count(void *ctx) { runs.increment(0); return 0; }
''')
sid = b.get_syscall_fnname(b"getsid")
b.attach_kprobe(event=sid, fn_name=b"count")
batchprobe.bcc.flush()
for _ in range(10):
    os.getsid(0)
runs = b[b"runs"][0].value
b.detach_kprobe(sid)
os.getsid(0)
print(runs, b[b"runs"][0].value)
batchprobe.bcc.uninstall()
b.attach_kprobe(event=sid, fn_name=b"count")
os.getsid(0)
print(b[b"runs"][0].value, type(lib.bpf_attach_kprobe).__name__)
try:
    batchprobe.bcc.flush()
except SessionError as error:
    print(error)
"""


def test_in_a_script_of_ones_own() -> None:
    done = run_script(INSTALLED)
    assert done.status == 0, done
    assert done.stdout.splitlines() == [
        "batchprobe.bcc is installed already",
        "10 10",
        "11 _FuncPtr",
        "batchprobe.bcc is not installed",
    ]


@pytest.mark.stress
@pytest.mark.parametrize(
    "number", [pytest.param(4, id="short"), pytest.param(200, id="long", marks=pytest.mark.long)]
)
def test_tools_killed_at_random_moments_leave_nothing(number: int, loop: Path) -> None:
    seed = int(os.environ.get("BATCHPROBE_SEED") or random.randrange(1 << 32))
    report_figure(f"tools killed at random moments: BATCHPROBE_SEED={seed}")
    dice = random.Random(seed)
    for at in range(number):
        end = dice.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
        abi = dice.choice(["auto", *ABIS])
        with Running("run", "--abi", abi, loop) as running:
            if dice.random() < 0.5:
                running.until_child(GUARDIAN)
            else:
                running.until_line("counts")
            time.sleep(dice.random())
            running.signal(end)
            if end is signal.SIGINT and dice.random() < 0.5:
                time.sleep(dice.random() / 5)
                running.signal(signal.SIGKILL)
            running.finish()
        eventually(lambda: not our_events() and not our_processes(), f"{seed}/{at}: all is gone")
