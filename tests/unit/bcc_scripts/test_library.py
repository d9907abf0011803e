# SPDX-License-Identifier: Apache-2.0
"""Where bcc is missing."""

from __future__ import annotations

import sys

import pytest

from batchprobe import arch
from batchprobe.bcc.library import Library
from batchprobe.errors import UnsupportedError
from batchprobe.programs.compiler import compile_now
from batchprobe.programs.source import compose


def test_a_tool_and_a_compilation_ask_for_the_same_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bcc", None)
    with pytest.raises(UnsupportedError, match="bcc's Python module is missing: ") as of_tool:
        Library()
    with pytest.raises(UnsupportedError, match="bcc's Python module is missing ") as of_compiler:
        compile_now(compose(arch.current()))
    assert "apt install python3-bpfcc" in of_tool.value.remedy
    assert of_tool.value.remedy == of_compiler.value.remedy
