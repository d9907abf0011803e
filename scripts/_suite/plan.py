# SPDX-License-Identifier: Apache-2.0
"""Which tests each form of the call runs, and on which kernels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from _vm.arch import ARCHES

from _suite.request import DEFAULT_ARCH, Form, Request, Target

_SECONDS = 3600
_LONG_SECONDS = 20_000

_MARKS = "not long and not figures"
_LONG_MARKS = "(long or not long) and not figures"
_ANY_KERNEL = "not one_kernel"
_SHORT = "not one_kernel and not stress"

_ALL_TESTS = ("tests/kernel",)
# One boot on each other architecture: the tests that depend on its adapter.
_ADAPTER_TESTS = (
    "tests/kernel/test_architecture.py",
    "tests/kernel/test_counts.py",
    "tests/kernel/test_commit.py::test_contract",
    "tests/kernel/test_modules.py::test_loaded_module",
    "tests/kernel/test_user_programs.py::test_it_runs_on_each_hit_until_the_commit",
    "tests/kernel/test_scope.py::test_processes_and_threads",
    "tests/kernel/test_scope.py::test_a_command_with_all_its_descendants",
    "tests/kernel/test_latency.py::test_calls_are_counted_and_last_as_long_as_they_do",
    "tests/kernel/test_latency.py::test_self_time_is_without_the_traced_callees",
)
_PAGE_TESTS = ("tests/kernel/test_architecture.py",)

# Options of pytest whose value may be a path.
_WITH_VALUE = ("--deselect", "--ignore", "--ignore-glob", "--rootdir", "--confcutdir", "-c")

# debian-12 runs every test, so it starts first.
_OWN = ("debian-12", "debian-13", "debian-11")
_OTHERS = (
    "riscv64:debian-13",
    "s390x:debian-12",
    "ppc64el:debian-12",
    "arm64:debian-12",
    "i386:debian-12",
)
_ON_THE_PAGE = (
    "riscv64:debian-13",
    "s390x:debian-12",
    "s390x:debian-13",
    "ppc64el:debian-12",
    "ppc64el:debian-13",
    "arm64:debian-12",
    "armhf:debian-12",
    "i386:debian-12",
    "x86_64:debian-12",
    "x86_64:debian-13",
)


@dataclass(frozen=True)
class Step:
    """One run of pytest, on this machine or in a guest."""

    name: str
    tests: tuple[str, ...]
    marks: str
    target: Target | None = None
    is_alone: bool = False
    """Whether no other guest may run at the same time."""

    def command(self, python: str, checkout: Path, request: Request) -> list[str]:
        """The command line that runs it."""
        tests = () if _names_tests(request.pytest, self.tests) else self.tests
        pytest = ["-q", "-m", self.marks, *tests, *request.pytest]
        if self.target is None:
            return [python, "-m", "pytest", *pytest]
        seconds = _LONG_SECONDS if request.form is Form.LONG else _SECONDS
        return [
            str(checkout / "scripts/vm"),
            *("--arch", self.target.arch, "--kernel", self.target.kernel),
            *("--timeout", str(seconds), "--", "tests/kernel/run.sh", *pytest),
        ]


def _names_tests(arguments: Sequence[str], tests: Iterable[str]) -> bool:
    """Whether pytest's arguments choose among the tests themselves."""
    folders = {"/".join(test.split("/")[:2]) for test in tests}
    values = {at + 1 for at, word in enumerate(arguments) if word in _WITH_VALUE}
    return any(
        "/".join(word.split("/")[:2]) in folders and at not in values
        for at, word in enumerate(arguments)
    )


def steps(request: Request) -> list[Step]:
    """What the request runs, in order."""
    marks = _LONG_MARKS if request.form is Form.LONG else _MARKS
    planned = []
    if request.form in {Form.ALL, Form.LONG, Form.UNIT}:
        planned.append(Step("unit", ("tests/unit",), marks))
    if request.form in {Form.ALL, Form.LONG, Form.VM}:
        planned.append(Step("vm", ("tests/vm",), marks))
    if request.form is Form.ARCH:
        planned += map(_architecture, _chosen(request.arches))
    elif request.form is Form.KERNEL and request.targets:
        planned += (Step(target.name, _ALL_TESTS, marks, target) for target in request.targets)
    elif request.form not in {Form.UNIT, Form.VM}:
        planned += _kernels(request.form, marks)
    return planned


def needs_guests(planned: Iterable[Step]) -> bool:
    """Whether any step boots a kernel: those of scripts/vm do it themselves."""
    return any(step.name != "unit" for step in planned)


def _kernels(form: Form, marks: str) -> Iterator[Step]:
    for name in _OWN:
        yield Step(name, _ALL_TESTS, _own_marks(form, name, marks), Target.parse(name))
    for name in _OTHERS:
        yield Step(name, _ADAPTER_TESTS, f"{marks} and {_SHORT}", Target.parse(name))


def _own_marks(form: Form, name: str, marks: str) -> str:
    """Tests that do not depend on the kernel run on one, unless every one is asked for."""
    if form is not Form.ALL or name == "debian-12":
        return marks
    return f"{marks} and {_SHORT if name == 'debian-11' else _ANY_KERNEL}"


def _chosen(arches: Iterable[str]) -> list[Target]:
    wanted = set(arches)
    found = map(Target.parse, _ON_THE_PAGE)
    return [target for target in found if not wanted or target.arch in wanted]


def _architecture(target: Target) -> Step:
    # With one emulation thread per CPU a guest needs all CPUs: another guest would be measured too.
    is_alone = ARCHES[target.arch].tcg_thread == "multi"
    if target.arch == DEFAULT_ARCH:
        # The rest of the page's figures for x86-64 is in docs/benchmarks.md.
        return Step(target.name, _PAGE_TESTS, "not long", target, is_alone)
    return Step(target.name, _ALL_TESTS, f"not long and {_SHORT}", target, is_alone)
