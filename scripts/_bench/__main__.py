# SPDX-License-Identifier: Apache-2.0
"""Entered as `python scripts/_bench`."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from _bench.host import main  # noqa: E402

sys.exit(main())
