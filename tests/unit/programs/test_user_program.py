# SPDX-License-Identifier: Apache-2.0
"""What the code of a caller's program says about where it can run."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import pytest
from recorded import recorded

from batchprobe.programs.program import from_text
from batchprobe.programs.user_program import UserProgram

# The compiler's output on Debian 12.
COMPILED = from_text(recorded("debian-12", "programs.txt").decode())


def call(helper: int, source: int = 0) -> bytes:
    return struct.pack("=BBhi", 0x85, source << 4, 0, helper)


def test_a_program_that_asks_for_its_function_needs_the_entry() -> None:
    assert UserProgram("by_func_ip", 3, code=COMPILED["by_func_ip"].code).needs_entry
    assert not UserProgram("by_ip", 3, code=COMPILED["by_ip"].code).needs_entry
    assert not UserProgram("unknown", 3).needs_entry


def test_overriding_a_return_is_recognized() -> None:
    assert UserProgram("override", 3, code=call(1) + call(58)).overrides_return
    # A call of another function of the program, 58 instructions further on.
    assert not UserProgram("plain", 3, code=call(58, source=1)).overrides_return


def test_what_is_a_program() -> None:
    assert UserProgram.of(7).fd == 7
    one = UserProgram("one", 3)
    assert UserProgram.of(one) is one
    for wrong in ("handler", None, SimpleNamespace(fd=3)):
        with pytest.raises(TypeError, match="load_func"):
            UserProgram.of(wrong)
