# SPDX-License-Identifier: Apache-2.0
"""What the code of a caller's program says about where it can run."""

from __future__ import annotations

import struct
import sys
from types import ModuleType, SimpleNamespace

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


def test_a_function_of_a_class_derived_from_bccs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a script makes one, in whose module there is no library of bcc."""
    bcc = ModuleType("bcc")
    bcc.lib = SimpleNamespace(  # type: ignore[attr-defined]
        bpf_function_start=lambda _module, _name: 0,
        bpf_function_size=lambda _module, _name: 8,
        bpf_module_license=lambda _module: b"GPL",
        bpf_module_kern_version=lambda _module: 0,
        bcc_func_load=lambda *arguments: arguments[-1],
    )
    monkeypatch.setitem(sys.modules, "bcc", bcc)

    class Function:
        __module__ = "bcc"
        bpf = SimpleNamespace(module=1, dump_func=lambda _name: call(58))
        name, fd = b"handler", 5

    derived = UserProgram.of(Function())
    assert (derived.name, derived.fd, derived.overrides_return) == ("handler", 5, True)
    assert derived._load is not None
    assert derived._load(42) == 42
