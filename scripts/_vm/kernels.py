# SPDX-License-Identifier: Apache-2.0
"""The distribution kernels that a guest can run, by name."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Distribution:
    """A release whose stock kernel can be booted."""

    name: str
    suite: str


DISTRIBUTIONS: Final = {
    d.name: d
    for d in (
        Distribution("debian-11", "bullseye"),
        Distribution("debian-12", "bookworm"),
        Distribution("debian-13", "trixie"),
        Distribution("debian-sid", "sid"),
    )
}

# Suites with the Python and the bcc that the guests' user space needs.
SUITES: Final = ("bookworm", "trixie", "sid")
