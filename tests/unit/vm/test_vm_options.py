# SPDX-License-Identifier: Apache-2.0
"""What scripts/vm makes of its command line, directories and environment."""

from pathlib import Path

import pytest
from _vm import cli, shares
from _vm.errors import VmError
from _vm.guest import fstab_path


def test_defaults() -> None:
    options = cli.parse(["uname", "-r"])
    assert (options.kernel, options.cpus, options.memory) == ("debian-12", 2, "2G")
    assert options.command == ["uname", "-r"]


@pytest.mark.parametrize("separator", [[], ["--"]])
def test_options_of_the_command_stay_its_own(separator: list[str]) -> None:
    options = cli.parse(["--kernel", "debian-13", *separator, "ls", "--cpus", "9", "--", "x"])
    assert options.kernel == "debian-13"
    assert options.cpus == 2
    assert options.command == ["ls", "--cpus", "9", "--", "x"]


@pytest.mark.parametrize(
    "wrong",
    [[], ["--"], ["--kernel", "debian-1", "ls"], ["--cpus", "0", "ls"], ["--prepare", "ls"]],
)
def test_usage_errors(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.parse(wrong)
    assert ended.value.code == 2


def test_packages_add_up() -> None:
    options = cli.parse(["--package", "bpftrace", "--package", "strace", "ls"])
    assert options.packages == ["bpftrace", "strace"]


def test_environment_passes_only_what_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHPROBE_LOG", "a=b")
    monkeypatch.setenv("BATCHPROBE_GUEST", "0")
    monkeypatch.setenv("NO_COLOR", "")
    monkeypatch.setenv("LD_PRELOAD", "x.so")
    found = dict(item.split("=", 1) for item in cli.environment(Path("/somewhere")))
    assert found["BATCHPROBE_LOG"] == "a=b"
    assert found["BATCHPROBE_GUEST"] == "1"
    assert found["NO_COLOR"] == ""
    assert found["PWD"] == "/somewhere"  # noqa: S105 - a directory
    assert found["PYTHONPATH"].split(":")[0] == str(cli.CHECKOUT)
    assert "LD_PRELOAD" not in found


@pytest.mark.parametrize(
    "path", ["/", "/usr", "/usr/bin", "/usr/lib/python3", "/proc/1", "/dev", "/etc", "/sys/kernel"]
)
def test_the_guest_keeps_its_own_system(path: str) -> None:
    assert not shares.shareable(Path(path))


@pytest.mark.parametrize("path", ["/tmp", "/root", "/home/me", "/usr/local/x", "/srv", "/etc/x"])  # noqa: S108
def test_other_directories_can_be_shared(path: str) -> None:
    assert shares.shareable(Path(path))


def test_nested_directories_are_mounted_once(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    beside = tmp_path / "ab"
    for folder in (inner, beside):
        folder.mkdir(parents=True)
    chosen = shares.choose(inner, tmp_path / "a", [beside, inner])
    assert chosen == [tmp_path / "a", beside]
    assert shares.visible(inner, chosen)
    assert not shares.visible(tmp_path, chosen)


def test_a_current_directory_that_cannot_be_shared_is_passed_over(tmp_path: Path) -> None:
    assert shares.choose(tmp_path, Path("/"), []) == [tmp_path]


@pytest.mark.parametrize("asked", ["/nonexistent/folder", "/"])
def test_a_wrong_share_is_refused(tmp_path: Path, asked: str) -> None:
    with pytest.raises(VmError):
        shares.choose(tmp_path, tmp_path, [Path(asked)])


def test_arguments_that_name_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lists, results = tmp_path / "lists", tmp_path / "results"
    for folder in (lists, results):
        folder.mkdir()
    (lists / "funcs.txt").touch()
    found = shares.of_arguments(
        [
            "attach",
            str(lists / "funcs.txt"),
            f"--json={results}/new.json",
            "/funcs.txt",
            "/nonexistent/file",
            "vfs_*",
            "ls\0-l",
            "x" * 5000,
        ]
    )
    assert set(found) == {lists, results, tmp_path}


def test_a_path_in_fstab() -> None:
    assert fstab_path(Path("/a b/c\\d")) == "/a\\040b/c\\134d"
