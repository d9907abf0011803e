# SPDX-License-Identifier: Apache-2.0
"""The list of all checks, and those that look at tracefs, symbols, kernel code and probe ABIs."""

from __future__ import annotations

import errno
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from batchprobe import arch
from batchprobe._util.counted import counted
from batchprobe._util.interrupts import deferred_interrupt
from batchprobe.actions.count import Count
from batchprobe.attach import abis, calibration
from batchprobe.attach.base import AttachContext, Placement
from batchprobe.commit.queue import RemovalFailure
from batchprobe.doctor.bcc import check_bcc, check_headers
from batchprobe.doctor.limits import (
    check_barrier,
    check_locked_memory,
    check_open_files,
    check_rcu_expedited,
    milliseconds_since,
    needs_root,
)
from batchprobe.errors import BatchprobeError, KernelError, UnsupportedError
from batchprobe.functions.table import FunctionTable
from batchprobe.functions.targets import Target
from batchprobe.kernel import host
from batchprobe.kernel.host import AS_ROOT, Finding, Status, lacking, ok, warn
from batchprobe.kernel.kcore import Kcore
from batchprobe.kernel.tracefs import Tracefs
from batchprobe.sys.process import Owner

__all__ = ["can_trace", "examine"]

_ABI = "abi "
# Only the ABI event needs it.
_TRACEFS = "tracefs"
_ResultT = TypeVar("_ResultT")


class Check(NamedTuple):
    """A check and its result."""

    name: str
    status: Status
    detail: str
    remedy: str
    """A command or one sentence that fixes the problem; empty if there is none."""


def examine() -> list[Check]:
    """Run every check, in an order in which the problems can be fixed one after another.

    As root this attaches a probe by each ABI, calls the probed function once, removes the probe,
    and waits for a grace period or two. Nothing it changes remains. Raises nothing: a check that
    fails has the status LACKING.
    """
    examination = _Examination()
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("kernel", examination.check_kernel),
        ("rights", host.check_privileges),
        ("lockdown", host.check_lockdown),
        ("configuration", host.check_config),
        ("kprobes", host.check_kprobes),
        ("ftrace", host.check_ftrace),
        (_TRACEFS, examination.check_tracefs),
        ("symbols", examination.check_symbols),
        ("bcc", check_bcc),
        ("headers", check_headers),
        ("btf", host.check_btf),
        ("jit", host.check_jit),
        ("locked memory", check_locked_memory),
        ("open files", check_open_files),
        ("barrier", check_barrier),
        ("expedited rcu", check_rcu_expedited),
        ("placement", examination.check_placement),
        *((_ABI + name, partial(examination.check_abi, name)) for name in abis.ABIS),
        ("stale objects", examination.check_stale_objects),
    ]
    try:
        return [Check(name, *_result(check)) for name, check in checks]
    finally:
        examination.close()


def can_trace(checks: Sequence[Check]) -> bool:
    """Whether a session can attach here: one ABI works, and nothing is LACKING that all need."""
    missing = {check.name for check in checks if check.status is Status.LACKING}
    abis = {check.name for check in checks if check.name.startswith(_ABI)}
    return bool(abis - missing) and not missing - abis - {_TRACEFS}


def _result(check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except UnsupportedError as error:
        return lacking(error.message, error.remedy)
    except (BatchprobeError, OSError) as error:
        return lacking(str(error))


class _Once(Generic[_ResultT]):
    """A function that several checks need, called once; its UnsupportedError is kept as well."""

    def __init__(self, function: Callable[[], _ResultT]) -> None:
        self._function = function
        self._results: list[_ResultT] = []
        self._error: UnsupportedError | None = None

    def __call__(self) -> _ResultT:
        """Return the result. Raises UnsupportedError, also in place of a PermissionError."""
        if self._error is None and not self._results:
            try:
                self._results.append(self._function())
            except UnsupportedError as error:
                self._error = error
            except PermissionError as error:
                self._error = UnsupportedError(str(error), remedy=AS_ROOT)
        if self._error is not None:
            raise self._error
        return self._results[0]


class _Examination:
    """The checks that share what they read from the kernel."""

    def __init__(self) -> None:
        self._arch = _Once(arch.current)
        self._tracefs = _Once(Tracefs.find)
        self._table = _Once(FunctionTable.from_kernel)
        self._target = _Once(lambda: calibration.target(self._table()))
        self._kcore = Kcore()

    def close(self) -> None:
        """Close /proc/kcore."""
        self._kcore.close()

    def check_kernel(self) -> Finding:
        """Check whether there is an adapter for this architecture."""
        self._arch()
        kernel = os.uname()
        return ok(f"{kernel.release} on {kernel.machine}")

    def check_tracefs(self) -> Finding:
        """Check whether kprobe_events can be written."""
        root = self._tracefs().root
        try:
            # Without O_TRUNC, which would delete everybody's events (probes_open(),
            # kernel/trace/trace_kprobe.c).
            os.close(os.open(f"{root}/kprobe_events", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC))
        except OSError as error:
            remedies = {
                errno.EACCES: AS_ROOT,
                errno.EROFS: f"mount -o remount,rw {root}",
                errno.EPERM: "see the check lockdown",
            }
            return lacking(str(error), remedies.get(error.errno or 0, ""))
        return ok(str(root))

    def check_symbols(self) -> Finding:
        """Check whether the kernel shows addresses (kallsyms_show_value(), kernel/kallsyms.c)."""
        try:
            self._table()
        except UnsupportedError as error:
            hides_from_root = os.geteuid() == 0 and _kptr_restrict() == "2"
            remedy = "sysctl -w kernel.kptr_restrict=1" if hides_from_root else error.remedy
            return lacking(error.message, remedy)
        return ok(f"addresses are visible (kernel.kptr_restrict={_kptr_restrict()})")

    def check_placement(self) -> Finding:
        """Check whether entry probes may stand after the patch site, which needs kernel code.

        /proc/kcore requires CAP_SYS_RAWIO, and no lockdown to confidentiality (open_kcore(),
        fs/proc/kcore.c).
        """
        if not self._arch().prefers_after:
            return ok("at the entry, where this architecture has breakpoints")
        if host.check_privileges()[0] is Status.LACKING:
            return needs_root()
        try:
            function = self._target().function
        except UnsupportedError as error:
            return warn(f"not tried: {error.message}", error.remedy)
        code = function and self._kcore.read(function.address, function.size)
        if not function or not code:
            why = self._kcore.reason or "/proc/kcore does not contain the kernel's code"
            return warn(f"at the entry, which makes removal by the ABI event slow: {why}")
        offset = self._arch().after_patch_site(code)
        if offset is None:
            return warn(f"at the entry: no known patch site in {function.name}")
        return ok(f"after the patch site, {function.name}+{offset}")

    def check_abi(self, name: str) -> Finding:
        """Probe one function in every way of this ABI, call it, and compare what is reported."""
        if host.check_privileges()[0] is Status.LACKING:
            return needs_root()
        try:
            target = self._target()
            context = AttachContext(
                arch=self._arch(),
                kcore=self._kcore,
                table=self._table(),
                programs={},
                action=Count(),
                filters=(),
                placement=Placement.AUTO,
                # The next start sweeps this group if this process is killed now.
                group=Owner.this_process().group,
                expedited_grace_periods=nullcontext,
                guard=lambda: None,
                progress=lambda _count: None,
            )
        except UnsupportedError as error:
            return lacking(f"not tried: {error.message}", error.remedy)
        variants = [variant for variant in calibration.VARIANTS if variant.abi == name]
        findings: dict[str, calibration.Observation] = {}
        failures: list[RemovalFailure] = []
        began = time.perf_counter()
        # Ctrl-C waits until the probes are removed.
        with deferred_interrupt():
            for variant, finding, failed in calibration.calibrate(
                context, target, variants, calibration.undo
            ):
                findings[variant.placement] = finding
                failures += failed
        if failures:
            return warn(f"a probe could not be removed: {failures[0].what}", "batchprobe cleanup")
        return _summary(target, findings, milliseconds_since(began))

    def check_stale_objects(self) -> Finding:
        """Check for probes of batchprobe processes that died before they removed them."""
        if os.geteuid() != 0:
            return needs_root()
        try:
            definitions = self._tracefs().definitions()
        except UnsupportedError as error:
            return ok(f"none: {error.message}")
        except KernelError as error:
            return warn(f"unknown: {error}")
        probes: Counter[bool] = Counter()
        for definition in definitions:
            owner = Owner.from_group(definition.group)
            if owner is not None:
                probes[owner.is_dead] += 1
        if probes[True]:
            return warn(
                f"{counted(probes[True], 'probe')} of processes that died", "batchprobe cleanup"
            )
        living = counted(probes[False], "probe")
        return ok(f"none; {living} of live processes" if probes[False] else "none")


def _summary(target: Target, findings: Mapping[str, calibration.Observation], took: str) -> Finding:
    """The finding about an ABI from those about each of its placements."""
    works = [where for where, found in findings.items() if not (found.refused or found.wrong)]
    wrong = [f"{where}: {found.wrong}" for where, found in findings.items() if found.wrong]
    refused = [f"{where}: {found.refused}" for where, found in findings.items() if found.refused]
    if wrong:
        detail = "; ".join(wrong)
        if works:
            return warn(f"{detail}; used: {', '.join(works)}")
        return lacking(detail, "see the checks kprobes and ftrace")
    if not works:
        # Usually every placement is refused for the same reason.
        return lacking(next(iter(findings.values())).refused)
    probed = ", ".join(
        f"{where} (+{offset})" if (offset := findings[where].offset) else where for where in works
    )
    detail = f"probed {target.name} at {probed}; removed, {took} in all"
    return ok("; ".join([detail, *(f"refused at {what}" for what in refused)]))


def _kptr_restrict() -> str:
    return Path("/proc/sys/kernel/kptr_restrict").read_text().strip()
