# SPDX-License-Identifier: Apache-2.0
"""Which directories of the host a guest sees, each at its own path."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from _vm.errors import VmError

# The guest has its own of these, with everything below.
_SUBTREES: Final = tuple(
    map(Path, ("/bin", "/boot", "/dev", "/kernel", "/lib", "/lib64", "/proc", "/run", "/sbin"))
) + tuple(map(Path, ("/sys", "/usr/bin", "/usr/lib", "/usr/lib64", "/usr/sbin", "/usr/src")))
_EXACTLY: Final = tuple(map(Path, ("/", "/etc", "/opt", "/opt/site", "/usr", "/usr/share", "/var")))


def shareable(path: Path) -> bool:
    """Whether the host's `path` can be mounted in the guest."""
    inside = (path == tree or tree in path.parents for tree in _SUBTREES)
    return path not in _EXACTLY and not any(inside) and "\n" not in str(path)


def choose(checkout: Path, cwd: Path, asked: Iterable[Path]) -> list[Path]:
    """The directories to mount, none of them inside another."""
    wanted = [checkout]
    if shareable(cwd):
        wanted.append(cwd)
    for path in asked:
        if not path.is_dir():
            raise VmError(f"--share {path}: no such directory")
        if not shareable(path):
            raise VmError(f"--share {path}: the guest has its own; share a directory below")
        wanted.append(path)
    kept: list[Path] = []
    for path in sorted(set(wanted)):
        if not any(other == path or other in path.parents for other in kept):
            kept.append(path)
    return kept


def of_arguments(arguments: Iterable[str]) -> list[Path]:
    """The directories of the files that a command's arguments name."""
    found = []
    for argument in arguments:
        # Either the argument itself or the value of --option=value.
        for text in {argument, argument.partition("=")[2]} - {""}:
            path = Path(os.path.abspath(text))  # noqa: PTH100 - a symlink in it must stay
            try:
                folder = path if path.is_dir() else path.parent
                if folder.is_dir() and shareable(folder):
                    found.append(folder)
            except OSError:
                # Not every argument can be a path: too long, or with a NUL in it.
                continue
    return found


def visible(path: Path, shares: Iterable[Path]) -> bool:
    """Whether the guest sees the host's `path`."""
    return any(share == path or share in path.parents for share in shares)
