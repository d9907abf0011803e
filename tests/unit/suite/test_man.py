# SPDX-License-Identifier: Apache-2.0
"""The manual page is what `--help` says, is correct roff, and is part of the wheel."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path

import _man
import pytest

from batchprobe.cli.args import OPTIONS
from batchprobe.cli.help_text import EXAMPLES, entries

CHECKOUT = Path(__file__).resolve().parents[3]


def test_the_committed_page_is_up_to_date() -> None:
    committed = (CHECKOUT / "docs/batchprobe.1").read_text()
    assert committed == _man.page(), "run scripts/build-man"


def test_it_is_part_of_the_wheel() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    shared = project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    assert shared == {"docs/batchprobe.1": "share/man/man1/batchprobe.1"}


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_it_shows_what_is_typed() -> None:
    done = subprocess.run(
        ("groff", "-man", "-ww", "-Tascii", "-P-cbou", "-rLL=200n"),
        input=_man.page(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    for option in OPTIONS.values():
        assert ", ".join(option.flags) in done.stdout
    for form, _ in entries():
        for entry in form.split():
            assert f" {entry}" in done.stdout
    for command, _ in EXAMPLES:
        assert f" {command}\n" in done.stdout


def test_text_is_escaped() -> None:
    assert _man._literal(r"/^a\.b-c~'`/") == r"/\(haa\e.b\-c\(ti\(aq\(ga/"
    assert _man._prose("-c and rcu-free, (-x)") == r"\-c and rcu-free, (\-x)"
    assert _man._prose(".so") == r"\&.so"
