# SPDX-License-Identifier: Apache-2.0
"""Entered as `python3 scripts/_vm`."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from _vm.cli import main  # noqa: E402

sys.exit(main())
