# SPDX-License-Identifier: Apache-2.0
"""Fetch packages of any suite without touching the machine's own package state."""

import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from _vm.errors import VmError
from _vm.run import progress, tool

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# A mirror may have stopped following sid. What it has is signed, and runs in a guest only.
STALE: Final = "Acquire::Check-Valid-Until"

# While a mirror syncs a point release, a suite's indexes can be older than its Release file, and
# apt refuses them. Under another name of the suite they may already match.
_OTHER_NAMES: Final = {
    "bullseye": ("oldoldstable", "oldstable"),
    "bookworm": ("oldstable", "oldoldstable"),
    "trixie": ("stable", "oldstable"),
    "sid": ("unstable",),
}


def mirror() -> str:
    """The Debian archive that this machine's own apt uses."""
    rows = tool(
        ["apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)"]
    ).splitlines()
    for row in rows:
        origin, label, uri = row.split("|", 2)
        if origin == label == "Debian":
            return uri
    raise VmError(
        "apt knows no Debian archive here: run `apt-get update` as root"
        " (its package lists name the mirror to use)"
    )


class PrivateApt:
    """An apt of its own for one suite and architecture, in a scratch directory.

    `suite` is a code name. `source` is the sources.list line of its main component, under the
    first name of the suite for which the mirror's indexes match.
    """

    def __init__(self, scratch: Path, suite: str, architecture: str) -> None:
        self._folder = scratch
        self._architecture = architecture
        refused: list[VmError] = []
        for name in (suite, *_OTHER_NAMES.get(suite, ())):
            self.source = self._use(name)
            try:
                self._update()
            except VmError as error:
                progress(f"apt cannot use {name} for {architecture}: {error}")
                refused.append(error)
                continue
            if self._codenames() == {suite}:
                return
        raise refused[0] if refused else VmError(f"the mirror's {suite} has another code name")

    def _codenames(self) -> set[str]:
        shown = tool(["apt-get", *self._options, "indextargets", "--format", "$(CODENAME)"])
        return set(shown.split())

    def _use(self, name: str) -> str:
        scratch = self._folder
        shutil.rmtree(scratch / "state", ignore_errors=True)
        for folder in ("state/lists/partial", "cache/archives/partial", "debs"):
            (scratch / folder).mkdir(parents=True, exist_ok=True)
        (scratch / "status").touch()
        source = f"deb [signed-by={KEYRING}] {mirror()} {name} main"
        (scratch / "sources.list").write_text(source + "\n")
        settings = {
            "Dir::State": scratch / "state",
            "Dir::State::status": scratch / "status",
            "Dir::Cache": scratch / "cache",
            "Dir::Etc::SourceList": scratch / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "APT::Architecture": self._architecture,
            "APT::Architectures": self._architecture,
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            STALE: "false",
            "Acquire::Retries": "3",
        }
        self._options = [x for k, v in settings.items() for x in ("-o", f"{k}={v}")]
        return source

    def _update(self) -> None:
        # Without this, apt reports success when every index failed to download.
        tool(["apt-get", *self._options, "-o", "APT::Update::Error-Mode=any", "update"])

    def closure(self, seeds: Iterable[str], wanted: re.Pattern[str]) -> list[str]:
        """The seeds and all their dependencies whose names match `wanted`."""
        found: list[str] = []
        queue = list(seeds)
        while queue:
            package = queue.pop()
            if package in found:
                continue
            found.append(package)
            queue += [d for d in self._depends(package) if wanted.match(d)]
        return found

    def _depends(self, package: str) -> list[str]:
        shown = tool(["apt-cache", *self._options, "--no-all-versions", "show", package])
        fields = re.findall(r"^(?:Pre-)?Depends: (.*)$", shown, re.MULTILINE)
        clauses = [clause.strip() for field in fields for clause in field.split(",")]
        return [re.split(r"[\s(|:]", clause, maxsplit=1)[0] for clause in clauses]

    def download(self, packages: Iterable[str]) -> list[Path]:
        """The packages' files."""
        folder = self._folder / "debs"
        tool(["apt-get", *self._options, "download", *packages], cwd=folder)
        return sorted(folder.glob("*.deb"))
