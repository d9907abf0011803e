"""A Python child process of ours that has the whole package: the compiler."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

__all__ = ["arguments"]


def arguments(module: str, *args: str) -> dict[str, Any]:
    """Keyword arguments for subprocess.Popen to run `module` of this package.

    The child finds this very package and nothing in the working directory: the parent may be root
    in somebody's /tmp.
    """
    path = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    return {
        "args": [sys.executable, "-P", "-m", f"batchprobe.{module}", *args],
        "env": {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
    }
