# SPDX-License-Identifier: Apache-2.0
"""The contract names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_contract_names_tests_that_exist() -> None:
    named = re.findall(
        r"`((?:kernel|unit)/[\w/]+\.py)(?:::(\w+))?`", (ROOT / "docs/contract.md").read_text()
    )
    assert len(named) > 30
    for file, test in named:
        text = (ROOT / "tests" / file).read_text()
        assert not test or re.search(rf"^def {test}\(", text, re.MULTILINE), f"{file}::{test}"
