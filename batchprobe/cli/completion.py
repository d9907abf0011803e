# SPDX-License-Identifier: Apache-2.0
"""What a shell offers for an entry of a function list: functions that the last start kept."""

from __future__ import annotations

import glob
import os

from batchprobe.funclist.spec import CORE
from batchprobe.functions.cache import FOLDER, kept_symbols

__all__ = ["complete"]


def complete(incomplete: str) -> list[str]:
    """Functions whose name begins so, also after `MODULE:`, and files.

    Nothing where no symbols are kept or only files can be meant: the shell then offers files.
    """
    module, colon, prefix = incomplete.rpartition(":")
    if not prefix or incomplete[0] in "./~-":
        return []
    functions = _functions(prefix, module) if colon else _functions(prefix)
    if not functions:
        return []
    files = glob.glob(f"{glob.escape(incomplete)}*")
    folders = {file for file in files if os.path.isdir(file)}
    return [
        *(f"{module}{colon}{name}" for name in functions),
        *sorted(f"{file}/" if file in folders else file for file in files),
    ]


def _functions(prefix: str, module: str | None = None) -> list[str]:
    symbols = kept_symbols(FOLDER)
    if symbols is None:
        return []
    wanted = "" if module == CORE else module
    return sorted(
        {
            symbols.names[position]
            for position in symbols.positions_containing(f"\n{prefix}")
            if symbols.functions[position]
            and (wanted is None or symbols.module_of(position) == wanted)
        }
    )
