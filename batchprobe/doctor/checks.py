"""What this machine offers batchprobe, and what would mend what it lacks: `batchprobe doctor`.

What can be read is asked of `batchprobe.kernel.features`. The rest is tried, each probe ABI with
one real probe through the code that a session uses, and taken off again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import re
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Generic, TypeVar

from batchprobe import arch
from batchprobe._util.interrupts import deferred_interrupt
from batchprobe.attach import abis, calibration
from batchprobe.attach.abis import Context, Placement
from batchprobe.attach.calibration import Kind
from batchprobe.commit.barrier import wait_through_map, why_not_expedited
from batchprobe.commit.queue import Left
from batchprobe.errors import BatchprobeError, KernelError, UnsupportedError
from batchprobe.functions.table import FunctionTable
from batchprobe.functions.targets import Target
from batchprobe.kernel import host
from batchprobe.kernel.host import AS_ROOT, Check, Finding, Status, lacking, ok, warn
from batchprobe.kernel.kcore import KernelText
from batchprobe.kernel.tracefs import Tracefs
from batchprobe.programs import compiler, program
from batchprobe.sys import bpf
from batchprobe.sys.process import Owner

__all__ = ["Check", "Status", "can_trace", "examine", "install_commands"]

_ABI = "abi "
_Found = TypeVar("_Found")
# The kernel's own limit where nobody raised it (INR_OPEN_MAX, include/uapi/linux/fs.h).
_FEW_FILES = 4096

# By os-release's ID: what installs bcc's Python module, and the running kernel's headers.
_PACKAGES = {
    "debian": ("apt install python3-bpfcc", "apt install linux-headers-{release}"),
    "fedora": ("dnf install python3-bcc", "dnf install kernel-devel-{release}"),
    "arch": ("pacman -S python-bcc", "pacman -S {package}-headers"),
    "suse": ("zypper install bcc-tools", "zypper install kernel-{flavour}-devel={version}"),
    "alpine": ("apk add py3-bcc", "apk add linux-{flavour}-dev"),
}


def examine() -> list[Check]:
    """Look at everything, in the order in which one would mend it.

    Raises nothing, whatever is lacking. As root it attaches a probe by each ABI, calls its function
    once and removes it; waits for a grace period or two; and changes nothing that stays.
    """
    examination = _Examination()
    looks: list[tuple[str, Callable[[], Finding]]] = [
        ("kernel", examination.kernel),
        ("rights", host.rights),
        ("lockdown", host.lockdown),
        ("configuration", host.configuration),
        ("kprobes", host.kprobes),
        ("ftrace", host.ftrace),
        ("tracefs", examination.tracefs),
        ("symbols", examination.symbols),
        ("bcc", _bcc),
        ("headers", _headers),
        ("btf", host.type_information),
        ("jit", host.jit),
        ("locked memory", _locked_memory),
        ("open files", _open_files),
        ("barrier", _barrier),
        ("expedited rcu", _expedited),
        ("placement", examination.placement),
        *((_ABI + name, partial(examination.abi, name)) for name in abis.ABIS),
        ("leftovers", examination.leftovers),
    ]
    try:
        return [Check(name, *_look(look)) for name, look in looks]
    finally:
        examination.close()


def can_trace(checks: Sequence[Check]) -> bool:
    """Whether a session could attach here: one ABI works, and nothing else is lacking."""
    abis = {check for check in checks if check.name.startswith(_ABI)}
    return any(check.status is not Status.LACKING for check in abis) and all(
        check.status is not Status.LACKING for check in checks if check not in abis
    )


def _look(look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except UnsupportedError as error:
        return lacking(error.message, error.remedy)
    except (BatchprobeError, OSError) as error:
        return lacking(str(error))


class _Once(Generic[_Found]):
    """Something that several checks need: looked for once, and the refusal is kept as well."""

    def __init__(self, look: Callable[[], _Found]) -> None:
        self._look = look
        self._found: list[_Found] = []
        self._error: UnsupportedError | None = None

    def get(self) -> _Found:
        """What was found. Raises UnsupportedError where it cannot be had."""
        if self._error is None and not self._found:
            try:
                self._found.append(self._look())
            except UnsupportedError as error:
                self._error = error
            except PermissionError as error:
                self._error = UnsupportedError(str(error), remedy=AS_ROOT)
        if self._error is not None:
            raise self._error
        return self._found[0]


class _Examination:
    """The checks that share what they look at."""

    def __init__(self) -> None:
        self._arch = _Once(arch.current)
        self._tracefs = _Once(Tracefs.find)
        self._table = _Once(self._read_table)
        self._target = _Once(self._find_target)
        self._text = KernelText()

    def _read_table(self) -> FunctionTable:
        try:
            root = self._tracefs.get().root
        except UnsupportedError:
            # Symbols can be had without: only what ftrace lists is not known then.
            root = "/sys/kernel/tracing"
        return FunctionTable.from_kernel(root)

    def _find_target(self) -> Target:
        """The function that the probes of this examination stand on."""
        return calibration.target(self._table.get())

    def close(self) -> None:
        """Close what was opened."""
        self._text.close()

    def kernel(self) -> Finding:
        """Its release, and whether there is an adapter for its architecture."""
        self._arch.get()
        kernel = os.uname()
        return ok(f"{kernel.release} on {kernel.machine}")

    def tracefs(self) -> Finding:
        """Whether kprobe_events can be written.

        Opened to append: to truncate would delete everybody's events (probes_open(),
        kernel/trace/trace_kprobe.c).
        """
        root = self._tracefs.get().root
        try:
            os.close(os.open(f"{root}/kprobe_events", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC))
        except OSError as error:
            remedies = {
                errno.EACCES: AS_ROOT,
                errno.EROFS: f"mount -o remount,rw {root}",
                errno.EPERM: "see the check lockdown",
            }
            return lacking(str(error), remedies.get(error.errno or 0, ""))
        return ok(str(root))

    def symbols(self) -> Finding:
        """Whether the kernel tells its addresses (kallsyms_show_value(), kernel/kallsyms.c)."""
        try:
            self._table.get()
        except UnsupportedError as error:
            hides_from_root = os.geteuid() == 0 and _kptr_restrict() == "2"
            remedy = "sysctl -w kernel.kptr_restrict=1" if hides_from_root else error.remedy
            return lacking(error.message, remedy)
        return ok(f"addresses are visible (kernel.kptr_restrict={_kptr_restrict()})")

    def placement(self) -> Finding:
        """Whether entry probes may stand behind the patch site: that takes the kernel's code.

        /proc/kcore wants CAP_SYS_RAWIO and no lockdown to confidentiality (open_kcore(),
        fs/proc/kcore.c).
        """
        if not self._arch.get().prefers_after:
            return ok("at the entry, where this architecture has breakpoints")
        if os.geteuid() != 0:
            return _needs_root()
        try:
            function = self._target.get().function
        except UnsupportedError as error:
            return warn(f"not tried: {error.message}", error.remedy)
        code = function and self._text.read(function.address, function.size)
        if not function or not code:
            why = self._text.reason or "/proc/kcore does not show the kernel's code"
            return warn(f"at the entry, where the ABI event is slow to remove: {why}")
        offset = self._arch.get().after_patch_site(code)
        if offset is None:
            return warn(f"at the entry: {function.name} begins in an unknown way")
        return ok(f"behind the patch site, {function.name}+{offset}")

    def abi(self, name: str) -> Finding:
        """Probe a function in every way, call it, and compare what is told; remove the probes."""
        if os.geteuid() != 0:
            return _needs_root()
        try:
            target = self._target.get()
            context = Context(
                arch=self._arch.get(),
                tracefs=self._tracefs.get(),
                text=self._text,
                table=self._table.get(),
                programs={},
                placement=Placement.AUTO,
                # Of our group: should we die now, the next start sweeps it.
                group=Owner.this_process().group,
                short_waits=contextlib.nullcontext,
                guard=lambda: None,
                progress=lambda _count: None,
            )
        except UnsupportedError as error:
            return lacking(f"not tried: {error.message}", error.remedy)
        kinds = [kind for kind in calibration.KINDS if kind.abi == name]
        began = time.perf_counter()
        # Ctrl-C waits until the probes are gone.
        with deferred_interrupt():
            found, left = _findings(
                calibration.calibrate(context, target, kinds, calibration.take_off)
            )
        took = _milliseconds(began)
        if left:
            return warn(f"a probe stays: {left[0].what}", "batchprobe cleanup")
        works = [place for place, said in found.items() if not (said.refused or said.wrong)]
        wrong = [f"{place}: {said.wrong}" for place, said in found.items() if said.wrong]
        refused = [f"{place}: {said.refused}" for place, said in found.items() if said.refused]
        if wrong:
            detail = "; ".join(wrong)
            remedy = "see the checks kprobes and ftrace"
            return warn(f"{detail}; used: {', '.join(works)}") if works else lacking(detail, remedy)
        if not works:
            # All are refused for one reason, mostly.
            return lacking(next(iter(found.values())).refused)
        detail = f"{target.name} was probed at {_places(found, works)}; removed, all in {took}"
        return ok("; ".join([detail, *(f"refused at {what}" for what in refused)]))

    def leftovers(self) -> Finding:
        """Probes of batchprobe processes that died before they removed them."""
        if os.geteuid() != 0:
            return _needs_root()
        try:
            definitions = self._tracefs.get().definitions()
        except UnsupportedError as error:
            return ok(f"none can be: {error.message}")
        except KernelError as error:
            return warn(f"cannot be read: {error}")
        probes: Counter[bool] = Counter()
        for definition in definitions:
            owner = Owner.from_group(definition.group)
            if owner is not None:
                probes[owner.is_dead] += 1
        if probes[True]:
            return warn(f"{probes[True]} probes of processes that died", "batchprobe cleanup")
        return ok(f"none; {probes[False]} probes of live processes" if probes[False] else "none")


def _needs_root() -> Finding:
    return warn("not tried: needs root", AS_ROOT)


def _kptr_restrict() -> str:
    return Path("/proc/sys/kernel/kptr_restrict").read_text().strip()


def _findings(
    tries: Iterable[tuple[Kind, calibration.Finding, Sequence[Left]]],
) -> tuple[dict[str, calibration.Finding], list[Left]]:
    found: dict[str, calibration.Finding] = {}
    left: list[Left] = []
    for kind, finding, stays in tries:
        found[kind.place] = finding
        left += stays
    return found, left


def _places(found: Mapping[str, calibration.Finding], works: Sequence[str]) -> str:
    told = ((place, found[place].offset) for place in works)
    return ", ".join(f"{place} (+{offset})" if offset else place for place, offset in told)


def _barrier() -> Finding:
    """The wait that makes counts final."""
    began = time.perf_counter()
    try:
        bpf.membarrier_global()
    except KernelError as error:
        if os.geteuid() != 0:
            return _needs_root()
        began = time.perf_counter()
        wait_through_map()
        return ok(f"a wait through a map, {_milliseconds(began)}, for want of {error}")
    return ok(f"membarrier(MEMBARRIER_CMD_GLOBAL), {_milliseconds(began)}")


def _milliseconds(began: float) -> str:
    return f"{(time.perf_counter() - began) * 1000:.0f} ms"


def _expedited() -> Finding:
    """Whether `--barrier auto` shortens the waits of a removal."""
    settings = ", ".join(f"{name}={_setting(name)}" for name in ("rcu_expedited", "rcu_normal"))
    why = why_not_expedited()
    if why is None:
        return ok(f"waits are expedited while probes are removed ({settings})")
    if _setting("rcu_normal") == "1":
        remedy = "echo 0 > /sys/kernel/rcu_normal"
    elif os.geteuid() != 0:
        remedy = AS_ROOT
    elif os.statvfs("/sys").f_flag & os.ST_RDONLY:
        remedy = "mount -o remount,rw /sys"
    else:
        remedy = "--barrier expedited, where its interrupts do no harm"
    return warn(f"removal is slow with the ABIs event and perf: {why} ({settings})", remedy)


def _setting(name: str) -> str:
    """A file of /sys/kernel; CONFIG_TINY_RCU has none of RCU's."""
    file = Path("/sys/kernel") / name
    return file.read_text().strip() if file.exists() else "absent"


_NOT_NEEDED = "not needed, the programs for this machine are shipped"


def _bcc() -> Finding:
    """bcc's Python module, if it is needed."""
    found = _importable_bcc()
    status, detail, _ = found
    if status is Status.LACKING and program.shipped() is not None:
        return ok(f"{detail}; {_NOT_NEEDED}")
    return found


def _importable_bcc() -> Finding:
    """Found without importing it: that takes a second."""
    command, _ = _install_commands_here()
    spec = find_spec("bcc")
    if spec is None or spec.origin is None:
        elsewhere = [*Path("/usr/lib").glob("python3*/*-packages/bcc/libbcc.py")]
        if elsewhere and sys.prefix != sys.base_prefix:
            return lacking(
                "this virtual environment does not see the system's bcc",
                "make it anew with --system-site-packages",
            )
        return lacking("bcc's Python module is missing", command)
    folder = Path(spec.origin).parent
    if not (folder / "libbcc.py").exists():
        return lacking(f"{folder} is PyPI's bcc, which is something else", "pip uninstall bcc")
    found = re.search(r"__version__ = '(.+)'", (folder / "version.py").read_text())
    return ok(f"{found[1] if found else 'of unknown version'}, {folder}")


def _headers() -> Finding:
    """What bcc compiles against: the headers of exactly this kernel."""
    place = compiler.headers()
    if place is not None:
        return ok(str(place))
    if program.shipped() is not None:
        return ok(f"none for the running kernel; {_NOT_NEEDED}")
    _, command = _install_commands_here()
    release = os.uname().release
    if any(Path(f"/lib/modules/{release}/kernel/kernel").glob("kheaders.ko*")):
        command = "modprobe kheaders"
    return lacking(f"none for the running kernel {release}", command)


def _install_commands_here() -> tuple[str, str]:
    release = os.uname().release
    try:
        system = platform.freedesktop_os_release()
    except OSError:
        system = {}
    package = Path(f"/usr/lib/modules/{release}/pkgbase")
    return install_commands(
        system, release, package.read_text().strip() if package.exists() else "linux"
    )


def install_commands(
    system: Mapping[str, str], release: str, package: str = "linux"
) -> tuple[str, str]:
    """What installs bcc's Python module, and the headers of the kernel `release`.

    `system` is what os-release(5) says, `package` the kernel's own package where that has a name.
    """
    version, _, flavour = release.rpartition("-")
    names = {"release": release, "version": version, "flavour": flavour, "package": package}
    for name in (system.get("ID", ""), *system.get("ID_LIKE", "").split()):
        if name in _PACKAGES:
            bcc, headers = _PACKAGES[name]
            return bcc.format_map(names), headers.format_map(names)
    return (
        "install bcc's Python module, see INSTALL.md of github.com/iovisor/bcc",
        f"install the headers of the kernel {release}",
    )


def _locked_memory() -> Finding:
    """Before Linux 5.11 maps are charged to RLIMIT_MEMLOCK, root's too; then to the cgroup."""
    if host.version(os.uname().release) >= (5, 11):
        return ok("no limit: maps are charged to the cgroup")
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if host.CAP_SYS_RESOURCE in host.capabilities(Path("/proc/self/status").read_text()):
        return ok("the limit is lifted when attaching")
    if hard == resource.RLIM_INFINITY:
        return ok("no limit")
    return warn(f"maps have {hard // 1024} KiB: few probes fit", "ulimit -l unlimited")


def _open_files() -> Finding:
    """The ABI perf takes a descriptor for each probe."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    detail = f"{hard} at most, of which the ABI perf takes one a probe"
    return warn(detail, "ulimit -Hn 1048576") if hard <= _FEW_FILES else ok(detail)
