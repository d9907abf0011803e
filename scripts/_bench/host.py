# SPDX-License-Identifier: Apache-2.0
"""The command line of scripts/bench."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from _bench import plan, results, targets, wheel
from _bench.jobs import EVERYTHING, Job, pack
from _bench.targets import Status

CHECKOUT: Final = Path(__file__).resolve().parents[2]
# The guest sees the checkout.
_CACHE: Final = CHECKOUT / ".cache/bench"
_KERNELS: Final = ("debian-11", "debian-12", "debian-13", "debian-sid")
_PACKAGES: Final = ("bpftrace", "bpfcc-tools", "python3-pip")
# For the boot, and for a tool that is slower than estimated.
_BOOT_SECONDS: Final = 40.0
_LATE_SECONDS: Final = 300.0
_NO_LIMIT_MINUTES: Final = 24 * 60.0

_DESCRIPTION: Final = """\
Measure batchprobe beside bcc, funccount and bpftrace: same functions, same kernel, same run.

Measures what is still missing on every kernel, then rewrites docs/benchmarks.md.
An interrupted run continues where it stopped."""

_EPILOG: Final = """\
exit status:
  0  done; with --quick, every target is met
  1  with --quick, a target was missed
  2  the command line is wrong
  3  nothing was missed, but something was not measured: it failed, or did not fit into the time
  4  a virtual machine or the wheel could not be made"""


def say(text: str) -> None:
    """Print a line of progress."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def main() -> int:
    """Run scripts/bench; its exit status."""
    options = _parse()
    # Unwinding the stack ends the guest.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    folder: Path = options.out
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if options.quick:
            return _quick(options.kernels or list(plan.QUICK_KERNELS), folder / "quick.jsonl")
        return _full(options, folder / "results.jsonl")
    except subprocess.CalledProcessError as error:
        say(f"{error.cmd[0]} failed with status {error.returncode}")
        return Status.NO_SETUP


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("kernels", nargs="*", metavar="KERNEL", help=f"some of {', '.join(_KERNELS)} (all)")
    add(
        "--quick",
        action="store_true",
        help="under 20 minutes: only what the targets need, on debian-12 and debian-13",
    )
    add("--report", action="store_true", help="measure nothing: only write the page")
    add("--again", action="store_true", help="measure even what was measured before")
    add("--budget", type=float, default=_NO_LIMIT_MINUTES, metavar="MINUTES", help="time limit")
    add("--kind", action="append", choices=plan.KINDS, help="only these measurements")
    add("--tool", action="append", help="only these tools, such as `bcc` or `batchprobe event`")
    add(
        "-n",
        "--count",
        action="append",
        type=_count,
        metavar="N",
        help=f"only this many functions, or `all` ({', '.join(map(str, plan.COUNTS[:-1]))}, all)",
    )
    add(
        "--out",
        type=Path,
        default=_CACHE,
        metavar="DIR",
        help="directory of the raw results (.cache/bench)",
    )
    add(
        "--docs",
        type=Path,
        default=CHECKOUT / "docs",
        metavar="DIR",
        help="directory of the page (docs)",
    )
    options = parser.parse_args()
    if unknown := set(options.kernels) - set(_KERNELS):
        parser.error(f"no such kernel: {', '.join(sorted(unknown))}")
    return options


def _count(text: str) -> int:
    return EVERYTHING if text == "all" else int(text)


def _quick(kernels: list[str], file: Path) -> Status:
    file.unlink(missing_ok=True)
    package = _prepare(kernels)
    end = time.monotonic() + plan.QUICK_SECONDS
    for left, kernel in zip(range(len(kernels), 0, -1), kernels, strict=True):
        _measure(kernel, plan.quick(kernel), (end - time.monotonic()) / left, package, file)
    ratios = targets.check(results.read(file), kernels)
    for ratio in ratios:
        print(ratio)
    print(targets.summary(ratios))
    return targets.status(ratios)


def _full(options: argparse.Namespace, file: Path) -> Status:
    """Measure what is lacking and write the page."""
    is_complete = options.report or _measure_lacking(options, file)
    from _bench import page  # noqa: PLC0415  (needs matplotlib)

    page.write(results.read(file), options.docs)
    say(f"wrote {options.docs / 'benchmarks.md'} from {file}")
    return Status.DONE if is_complete else Status.NOT_MEASURED


def _measure_lacking(options: argparse.Namespace, file: Path) -> bool:
    """Whether all that was lacking is measured now."""
    kernels = options.kernels or list(_KERNELS)
    package = _prepare(kernels)
    end = time.monotonic() + options.budget * 60
    is_complete = True
    for left, kernel in zip(range(len(kernels), 0, -1), kernels, strict=True):
        jobs = plan.full(kernel, options.kind or plan.KINDS, options.count or plan.COUNTS)
        if options.tool:
            jobs = plan.only(jobs, options.tool)
        known = {} if options.again else results.read(file)
        jobs = [job for job in jobs if results.is_lacking(job, kernel, known)]
        if not jobs:
            say(f"{kernel}: everything is measured")
            continue
        is_complete &= _measure(kernel, jobs, (end - time.monotonic()) / left, package, file)
        found = results.read(file)
        is_complete &= not any(results.is_lacking(job, kernel, found) for job in jobs)
    return is_complete


def _vm(kernel: str) -> list[str]:
    packages = (word for package in _PACKAGES for word in ("--package", package))
    # The same tools, of one version, on all kernels.
    suite = ("--userspace", "bookworm")
    return [str(CHECKOUT / "scripts/vm"), "--kernel", kernel, *suite, *packages]


def _prepare(kernels: Sequence[str]) -> Path:
    """Build images and the wheel before the clock runs; the wheel."""
    for kernel in kernels:
        subprocess.run([*_vm(kernel), "--prepare"], check=True)
    return wheel.obtain(CHECKOUT, _CACHE)


def _measure(kernel: str, jobs: Sequence[Job], seconds: float, package: Path, file: Path) -> bool:
    """Make measurements in one boot of a kernel; whether the guest ended well."""
    inside = seconds - _BOOT_SECONDS
    if inside <= 0:
        say(f"{kernel}: left out, no time left")
        return False
    say(f"{kernel}: {len(jobs)} measurements, {inside / 60:.0f} minutes at most")
    machine, commit = _machine(), _commit()
    command = [
        *(*_vm(kernel), "--memory", "4G"),
        *(f"--timeout={inside + _LATE_SECONDS:.0f}", "--", "sh"),
        *(str(CHECKOUT / "scripts/_bench/guest.sh"), str(package)),
        *(f"--seconds={inside:.0f}", pack(jobs)),
    ]
    with (
        subprocess.Popen(
            command,
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        ) as guest,
        file.open("a") as out,
    ):
        assert guest.stdout
        try:
            for line in guest.stdout:
                # The load average includes our own guest.
                busy = max(0.0, os.getloadavg()[0] - 1)
                known = {"kernel": kernel, "machine": machine, "commit": commit, "busy": busy}
                out.write(json.dumps({**known, **json.loads(line)}) + "\n")
                out.flush()
        except BaseException:
            guest.terminate()
            raise
    if guest.returncode:
        say(f"{kernel}: the guest ended with {guest.returncode}; the rest is not measured")
    return guest.returncode == 0


def _machine() -> dict[str, str]:
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    version = subprocess.run(
        ["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True
    ).stdout
    found = re.search(r"version (\S+)", version)
    return {
        "cpu": model[1] if model else "unknown",
        "cpus": str(os.cpu_count()),
        "qemu": found[1] if found else "unknown",
    }


def _commit() -> str:
    """The checkout's commit, with `-dirty` if files have changed since."""
    return subprocess.run(
        ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--exclude=*"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
