# SPDX-License-Identifier: Apache-2.0
"""Where scripts/batchprobe runs the command."""

from __future__ import annotations

from pathlib import Path

import _launch
import pytest


@pytest.mark.parametrize(
    ("arguments", "needs_kernel"),
    [
        ([], False),
        (["--help"], False),
        (["attach", "--help"], False),
        (["--version"], False),
        (["--show-completion"], False),
        (["attach", "list"], True),
        (["attach", "-c", "ls", "--", "--help"], True),
        (["doctor"], True),
        (["run", "--help"], False),
        (["run", "funccount", "--help"], True),
    ],
)
def test_words_need_no_kernel(arguments: list[str], needs_kernel: bool) -> None:
    assert _launch.needs_kernel(arguments) is needs_kernel


@pytest.mark.parametrize(
    ("wish", "can_trace", "kernel"),
    [
        ("", True, None),
        ("", False, "debian-12"),
        ("never", False, None),
        ("debian-13", True, "debian-13"),
        ("debian-13", False, "debian-13"),
    ],
)
def test_where_it_runs(wish: str, can_trace: bool, kernel: str | None) -> None:
    assert _launch.guest_kernel(["doctor"], wish, lambda: can_trace) == kernel
    assert _launch.guest_kernel(["--help"], wish, lambda: can_trace) is None


@pytest.mark.parametrize(
    ("symbols", "has_kprobes"),
    [
        ("0 T register_kprobe\n", True),
        ("0 T register_kprobes\n0 T __register_kprobe\n0 t register_kprobe\t[other]\n", False),
        (None, False),
    ],
)
def test_kprobes_show_in_the_symbols(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, symbols: str | None, has_kprobes: bool
) -> None:
    file = tmp_path / "kallsyms"
    if symbols is not None:
        file.write_text(symbols)
    monkeypatch.setattr(_launch, "_SYMBOLS", file)
    assert _launch.has_kprobes() is has_kprobes
