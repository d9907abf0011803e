# SPDX-License-Identifier: Apache-2.0
"""The adapter of this architecture against the kernel, and figures for docs/architectures.md."""

from __future__ import annotations

import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from helpers.figures import record, report_figure
from helpers.machine import ABIS, BCC_COMPILES, MACHINE, PLACES, kinds

from batchprobe import Probe, Session, arch
from batchprobe.actions import Count
from batchprobe.attach.base import AttachContext, Placement
from batchprobe.attach.calibration import VARIANTS, Observation, Variant, calibrate, target, undo
from batchprobe.functions.table import FunctionTable
from batchprobe.kernel import kprobes_list
from batchprobe.kernel.kcore import Kcore
from batchprobe.sys import bpf, fds, libc, perf
from batchprobe.sys.process import Owner

# By placement: what the instruction pointer reads, in bytes from the symbol of the probed function.
# It depends on how the function begins, on x86_64 with endbr64 or without. First seen by hand.
TOLD = {
    "x86_64": {"entry": {1, 5}, "after": {6, 10}, "return": {0, 4}},
    "i686": {"entry": {1}, "after": {6}, "return": {0}},
    "aarch64": {"entry": {0}, "after": {8, 12}, "return": {0}},
    "armv7l": {"entry": {0}, "return": {0}},
    "ppc64le": {"entry": {12}, "after": {16}, "return": {12}},
    "s390x": {"entry": {0}, "after": {8}, "return": {0}},
    "riscv64": {"entry": {0}, "after": {8}, "return": {0}},
}


def try_all_variants() -> dict[Variant, Observation]:
    """Try every variant of probe on this kernel."""
    kcore = Kcore()
    table = FunctionTable.from_kernel()
    context = AttachContext(
        arch=arch.current(),
        kcore=kcore,
        table=table,
        programs={},
        action=Count(),
        filters=(),
        placement=Placement.AUTO,
        group=Owner.this_process().group,
        expedited_grace_periods=contextlib.nullcontext,
        guard=lambda: None,
        progress=lambda _count: None,
    )
    try:
        tries = list(calibrate(context, target(table), VARIANTS, undo))
    finally:
        kcore.close()
    assert not [failed for _, _, failed in tries if failed]
    return {variant: finding for variant, finding, _ in tries}


def test_the_adapter_agrees_with_the_kernel() -> None:
    found = try_all_variants()
    works = {variant for variant, finding in found.items() if not finding.refused}
    assert not [finding.wrong for finding in found.values() if finding.wrong]
    expected = {Variant(abi, placement) for abi in ABIS if abi != "multi" for placement in PLACES}
    expected |= {Variant(abi, "return") for abi in ABIS if "%return" in kinds(abi)}
    expected |= {Variant("multi", "entry")} if "multi" in ABIS else set()
    assert works == expected
    for variant in works:
        ip = found[variant].ip
        # Before 5.15 only current_kprobe names the function of a return probe.
        if variant.abi != "multi" and (ip is not None or variant.placement != "return"):
            assert ip in TOLD[MACHINE][variant.placement], variant
    record(
        "places",
        {
            f"{variant.abi} {variant.placement}": finding.refused or [finding.offset, finding.ip]
            for variant, finding in found.items()
        },
    )


def some_functions(number: int = 200) -> list[str]:
    """The names of functions that ftrace can trace, each of them unique."""
    text = Path("/sys/kernel/tracing/available_filter_functions").read_text()
    names = re.findall(r"^((?:tcp|vfs|inet|sock|udp|ip)_\w+)$", text, re.MULTILINE)
    symbols = re.findall(r"^\w+ \w (\w+)", Path("/proc/kallsyms").read_text(), re.MULTILINE)
    namesakes = Counter(symbols)
    return [name for name in names if namesakes[name] == 1][:number]


@pytest.mark.skipif(
    not arch.current().jump_optimizes, reason="breakpoints are not jump-optimized here"
)
def test_few_probes_that_cannot_be_jump_optimized_move_to_the_entry() -> None:
    def placements(names: list[str], placement: str) -> dict[str, str]:
        with Session(abi="event", placement=placement) as session:
            probes = session.attach(names)
            assert not session.skipped
            traps = kprobes_list.breakpoints()
            found = {
                probe.label: "trap" if probe.address in traps else probe.placement
                for probe in probes
            }
            Path("/").stat()
            assert session.detach_all().failed == ()
            # Still known although probes were moved. Their number depends on what else runs.
            assert session.missed() is not None
        if "vfs_statx" in names:
            assert next(probe.count for probe in probes if probe.label == "vfs_statx") > 0
        return found

    many = some_functions(65)
    few = ["vfs_statx", *(name for name in many if name != "vfs_statx")][:64]
    after = placements(few, "after")
    traps = {name for name, where in after.items() if where == "trap"}
    assert traps, "the kernel jump-optimized all breakpoints"
    assert placements(few, "auto") == {
        name: "entry" if where == "trap" else where for name, where in after.items()
    }
    assert placements(many, "auto") == placements(many, "after")


BCC = """
import sys, time
from bcc import BPF
names, offset = sys.argv[2:], int(sys.argv[1])
bpf = BPF(text="int hit(struct pt_regs *ctx) { return 0; }", cflags=["-w"])
bpf.load_func("hit", BPF.KPROBE)
attached = []
began = time.perf_counter()
for name in names:
    try:
        bpf.attach_kprobe(event=name, event_off=offset, fn_name="hit")
    except Exception:
        continue
    attached.append(name)
middle = time.perf_counter()
for name in attached:
    bpf.detach_kprobe(event=name)
print(len(attached), middle - began, time.perf_counter() - middle)
"""


def by_bcc(names: list[str]) -> tuple[int, float, float]:
    """Attach and detach with bcc, one by one; returns the number of probes and both times."""
    offset = "0" if "entry" in PLACES else "8"
    done = subprocess.run(
        (sys.executable, "-c", BCC, offset, *names), capture_output=True, text=True, check=True
    )
    count, attach, detach = done.stdout.split()[-3:]
    return int(count), float(attach), float(detach)


def by_system_calls(probes: list[Probe]) -> tuple[int, float, float]:
    """The same with the system calls that bcc makes, where there is no bcc."""
    pmu = int(Path("/sys/bus/event_source/devices/kprobe/type").read_text())
    program = bpf.prog_load("nothing", bpf.RETURN_0)
    began = time.perf_counter()
    opened = []
    for probe in probes:
        opened.append(perf.open_kprobe(pmu, probe.address or 0, is_return=False))
        perf.enable(opened[-1], program)
    middle = time.perf_counter()
    for fd in opened:
        fds.close(fd)
    done = time.perf_counter()
    fds.close(program)
    return len(opened), middle - began, done - middle


@pytest.mark.figures
def test_teardown_compared_with_one_by_one() -> None:
    """Asserts no time: the figures go to docs/architectures.md."""
    names = some_functions()
    with Session() as session:
        began = time.perf_counter()
        probes = session.attach(names)
        attach = time.perf_counter() - began
        assert len(probes) >= 190, session.skipped
        began = time.perf_counter()
        report = session.detach_all()
        detach = time.perf_counter() - began
    assert (report.barriers, report.failed) == (1, ())
    graces = []
    for _ in range(5):
        began = time.perf_counter()
        libc.membarrier_global()
        graces.append(time.perf_counter() - began)
    tool = "bcc" if BCC_COMPILES else "system calls"
    count, other_attach, other_detach = by_bcc(names) if tool == "bcc" else by_system_calls(probes)
    assert count >= 190
    ratio = (other_detach / count) / (detach / len(probes))
    abis = "+".join(sorted({probe.abi for probe in probes}))
    record(
        "teardown",
        {
            "tool": tool,
            "other": [count, other_attach, other_detach],
            "batchprobe": [len(probes), attach, detach],
            "barrier": report.barrier_seconds,
            "grace": statistics.median(graces),
            "ratio": ratio,
            "abi": abis,
            "placements": sorted({probe.placement for probe in probes}),
        },
    )
    report_figure(
        f"{MACHINE}: {len(probes)} probes by {abis} off in {detach:.2f} s; {count} by {tool}"
        f" in {other_detach:.1f} s: {ratio:.0f} times faster"
    )


def test_the_programs_need_no_compiler() -> None:
    """They are shipped for this machine, so counting works without bcc and headers."""
    env = {**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    code = (
        "import sys, json; sys.modules['bcc'] = None; from batchprobe import Session\n"
        "with Session() as s:\n"
        "    probes = s.attach(['syscall:getsid'])\n"
        "    import os; os.getsid(0); os.getsid(0)\n"
        "    s.detach_all()\n"
        "print(json.dumps([p.count for p in probes]))"
    )
    done = subprocess.run(
        (sys.executable, "-c", code), capture_output=True, text=True, check=True, env=env
    )
    assert json.loads(done.stdout) == [2]
