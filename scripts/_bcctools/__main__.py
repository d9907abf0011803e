# SPDX-License-Identifier: Apache-2.0
"""Entered as `python scripts/_bcctools`."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from _bcctools.main import main  # noqa: E402

sys.exit(main())
