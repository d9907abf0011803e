"""Fetch packages of any suite without touching the machine's own package state."""

import re
from collections.abc import Iterable
from pathlib import Path

from _vm.errors import VmError
from _vm.run import tool

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


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
        " (its package lists also tell which mirror to use)"
    )


def source_line(suite: str) -> str:
    """The one-line source of a suite's main component."""
    return f"deb [signed-by={KEYRING}] {mirror()} {suite} main"


class PrivateApt:
    """An apt of its own for one suite and architecture, in a scratch directory."""

    def __init__(self, scratch: Path, suite: str, architecture: str) -> None:
        self._folder = scratch
        for folder in ("state/lists/partial", "cache/archives/partial", "debs"):
            (scratch / folder).mkdir(parents=True, exist_ok=True)
        (scratch / "status").touch()
        (scratch / "sources.list").write_text(source_line(suite) + "\n")
        settings = {
            "Dir::State": scratch / "state",
            "Dir::State::status": scratch / "status",
            "Dir::Cache": scratch / "cache",
            "Dir::Etc::SourceList": scratch / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "APT::Architecture": architecture,
            "APT::Architectures": architecture,
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
        }
        self._options = [x for k, v in settings.items() for x in ("-o", f"{k}={v}")]
        # Without this, apt reports success when every index failed to download.
        tool(["apt-get", *self._options, "-o", "APT::Update::Error-Mode=any", "update"])

    def closure(self, seeds: Iterable[str], wanted: re.Pattern[str]) -> list[str]:
        """The seeds and what they depend on, as far as the names match `wanted`."""
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
