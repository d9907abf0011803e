# SPDX-License-Identifier: Apache-2.0
"""The command line of scripts/test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from _vm.arch import ARCHES

DEFAULT_ARCH = "x86_64"


class UsageError(Exception):
    """The command line cannot be run; the message may be empty."""


class Form(Enum):
    """What scripts/test runs, by its first argument."""

    ALL = ""
    UNIT = "unit"
    VM = "vm"
    KERNEL = "kernel"
    ARCH = "arch"
    LONG = "long"


@dataclass(frozen=True)
class Target:
    """A kernel to boot. Its name in the output is the one it was asked for by."""

    arch: str
    kernel: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Target:
        """The target of `KERNEL` or `ARCH:KERNEL`."""
        before, colon, kernel = text.rpartition(":")
        arch = before if colon else DEFAULT_ARCH
        if arch not in ARCHES or kernel not in ARCHES[arch].kernels:
            known = " ".join(
                kernel if name == DEFAULT_ARCH else f"{name}:{kernel}"
                for name, known in ARCHES.items()
                for kernel in known.kernels
            )
            raise UsageError(f"no kernel {text} here: {known}")
        return cls(arch, kernel, text)


@dataclass(frozen=True)
class Request:
    """A parsed command line."""

    form: Form
    targets: tuple[Target, ...] = ()
    """The kernels asked for by name; empty: the form's own."""
    arches: tuple[str, ...] = ()
    pytest: tuple[str, ...] = ()


def parse(arguments: Sequence[str]) -> Request:
    """The request; UsageError if there is no such form, kernel or architecture."""
    words = list(arguments)
    pytest: list[str] = []
    if "--" in words:
        at = words.index("--")
        words, pytest = words[:at], words[at + 1 :]
    form = Form.ALL
    if words:
        try:
            form = Form(words.pop(0) or None)
        except ValueError:
            raise UsageError from None
    if words and form not in {Form.KERNEL, Form.ARCH}:
        raise UsageError
    names = tuple(dict.fromkeys(words))
    if form is Form.KERNEL:
        return Request(form, targets=tuple(map(Target.parse, names)), pytest=tuple(pytest))
    for name in names:
        if name not in ARCHES:
            raise UsageError(f"no architecture {name} here: {' '.join(ARCHES)}")
    return Request(form, arches=names, pytest=tuple(pytest))
