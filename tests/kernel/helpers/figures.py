"""What tests measured or tried, shown at the end: figures for the documents, not verdicts."""

from __future__ import annotations

__all__ = ["lines", "tell"]

lines: list[str] = []


def tell(line: str) -> None:
    """Show a line at the end of the run."""
    lines.append(line)
