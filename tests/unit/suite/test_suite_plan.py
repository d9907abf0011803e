# SPDX-License-Identifier: Apache-2.0
"""Which tests scripts/test runs, on which kernels, for each form of the call."""

from __future__ import annotations

from pathlib import Path

import pytest
from _suite import plan
from _suite.main import CHECKOUT, main, usage
from _suite.plan import Step
from _suite.request import Form, Request, Target, UsageError, parse
from _suite.verdict import failure
from _vm.arch import ARCHES

SHORT = "not long and not figures and not one_kernel and not stress"
OWN = ["debian-12", "debian-13", "debian-11"]


def steps(*arguments: str) -> dict[str, Step]:
    return {step.name: step for step in plan.steps(parse(arguments))}


def test_what_follows_two_dashes_goes_to_pytest() -> None:
    assert parse(["--", "-k", "x", "--", "y"]) == Request(Form.ALL, pytest=("-k", "x", "--", "y"))
    assert parse(["kernel", "debian-13", "--", "-x"]).pytest == ("-x",)
    assert parse(["unit", "--"]).pytest == ()


@pytest.mark.parametrize(
    "wrong",
    [
        ["nothing"],
        [""],
        ["unit", "debian-12"],
        ["long", "debian-12"],
        ["debian-12"],
        ["kernel", "debian-1"],
        ["kernel", "armhf:debian-11"],
        ["kernel", "vax:debian-12"],
        ["arch", "vax"],
        ["arch", "debian-12"],
    ],
)
def test_what_there_is_not_is_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError):
        parse(wrong)
    assert main(wrong) == 2
    assert capsys.readouterr().err.strip()


def test_the_usage_is_the_comment_of_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert said == usage() + "\n"
    assert said.startswith("Run the tests:\n  scripts/test ")
    assert "set -eu" not in said
    for form in Form:
        assert f"scripts/test {form.value}".rstrip() in said


def test_without_an_argument_all_is_run() -> None:
    found = steps()
    assert list(found)[:5] == ["unit", "vm", *OWN]
    assert found["unit"] == Step("unit", ("tests/unit",), "not long and not figures")
    assert found["vm"] == Step("vm", ("tests/vm",), "not long and not figures")
    assert {found[name].tests for name in OWN} == {("tests/kernel",)}
    assert found["debian-12"].marks == "not long and not figures"
    assert found["debian-13"].marks == "not long and not figures and not one_kernel"
    assert found["debian-11"].marks == SHORT


def test_other_architectures_run_a_short_form() -> None:
    for form in ((), ("kernel",)):
        others = [step for step in steps(*form).values() if step.target and ":" in step.name]
        assert {step.target.arch for step in others if step.target} == {
            *("riscv64", "s390x", "ppc64el", "arm64", "i386")
        }
        assert {step.marks for step in others} == {SHORT}
        assert {step.tests for step in others} == {
            (
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
        }
        assert not any(step.is_alone for step in others)


def test_the_files_that_are_named_are_there() -> None:
    for step in [*steps().values(), *steps("arch").values()]:
        for name in step.tests:
            file, _, test = name.partition("::")
            path = CHECKOUT / file
            assert path.is_dir() or f"def {test}" in path.read_text()


def test_only_one_part() -> None:
    assert list(steps("unit")) == ["unit"]
    assert list(steps("vm")) == ["vm"]
    assert not plan.needs_guests(steps("unit").values())
    assert plan.needs_guests(steps("vm").values())


def test_kernels_run_all_but_the_long_tests() -> None:
    found = steps("kernel")
    assert list(found)[:3] == OWN
    assert {found[name].marks for name in OWN} == {"not long and not figures"}


def test_a_kernel_asked_for_by_name_runs_all_but_the_long_tests() -> None:
    found = steps("kernel", "debian-sid", "s390x:debian-12", "debian-sid")
    assert list(found.values()) == [
        Step(
            "debian-sid",
            ("tests/kernel",),
            "not long and not figures",
            Target("x86_64", "debian-sid", "debian-sid"),
        ),
        Step(
            "s390x:debian-12",
            ("tests/kernel",),
            "not long and not figures",
            Target("s390x", "debian-12", "s390x:debian-12"),
        ),
    ]


def test_long_adds_the_long_tests_and_those_that_need_one_kernel() -> None:
    marks = "(long or not long) and not figures"
    found = steps("long")
    assert list(found) == list(steps())
    assert {found[name].marks for name in ("unit", "vm", *OWN)} == {marks}
    assert found["arm64:debian-12"].marks == f"{marks} and not one_kernel and not stress"


def test_every_architecture_is_on_the_page() -> None:
    found = steps("arch")
    assert {step.target.arch for step in found.values() if step.target} == set(ARCHES)
    for name, step in found.items():
        if name.startswith("x86_64:"):
            assert step.tests == ("tests/kernel/test_architecture.py",)
            assert step.marks == "not long"
        else:
            assert step.tests == ("tests/kernel",)
            assert step.marks == "not long and not one_kernel and not stress"


def test_a_guest_with_a_thread_a_cpu_runs_alone_where_figures_are_taken() -> None:
    alone = {step.target.arch for step in steps("arch").values() if step.is_alone and step.target}
    assert alone == {"arm64", "armhf", "s390x", "riscv64"}
    assert not any(step.is_alone for step in steps("long").values())


def test_only_some_architectures() -> None:
    assert list(steps("arch", "s390x", "i386")) == [
        *("s390x:debian-12", "s390x:debian-13", "i386:debian-12")
    ]


def test_commands() -> None:
    request = parse(["kernel", "arm64:debian-13", "--", "-x"])
    [step] = plan.steps(request)
    assert step.command("python", Path("/c"), request) == [
        *("/c/scripts/vm", "--arch", "arm64", "--kernel", "debian-13", "--timeout", "3600", "--"),
        *("tests/kernel/run.sh", "-q", "-m", "not long and not figures", "tests/kernel", "-x"),
    ]
    request = parse(["unit", "--", "-k", "x"])
    [step] = plan.steps(request)
    assert step.command("python", Path("/c"), request) == [
        *("python", "-m", "pytest", "-q", "-m", "not long and not figures"),
        *("tests/unit", "-k", "x"),
    ]


@pytest.mark.parametrize(
    ("arguments", "is_replaced"),
    [
        (["tests/kernel/test_attach.py", "-x"], True),
        (["-x", "tests/kernel/test_attach.py::test_x"], True),
        (["tests/unit/vm"], False),
        (["--deselect", "tests/kernel/test_attach.py"], False),
        (["--ignore=tests/kernel/test_attach.py"], False),
        (["-k", "attach"], False),
    ],
)
def test_tests_that_are_named_replace_the_forms_own(
    arguments: list[str], is_replaced: bool
) -> None:
    request = parse(["kernel", "debian-12", "--", *arguments])
    [step] = plan.steps(request)
    command = step.command("python", Path("/c"), request)
    assert ("tests/kernel" not in command) is is_replaced
    assert command[-len(arguments) :] == arguments


def test_long_tests_have_more_time() -> None:
    request = parse(["long"])
    command = steps("long")["debian-12"].command("python", Path("/c"), request)
    assert command[command.index("--timeout") + 1] == "20000"


@pytest.mark.parametrize(
    ("status", "is_selected", "why"),
    [
        (0, False, None),
        (1, True, "failed with status 1"),
        (5, False, "failed with status 5"),
        (5, True, None),
        (124, True, "failed with status 124"),
        (-9, False, "failed by signal 9"),
    ],
)
def test_verdicts(status: int, is_selected: bool, why: str | None) -> None:
    assert failure(status, is_selected=is_selected) == why
