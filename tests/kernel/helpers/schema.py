# SPDX-License-Identifier: Apache-2.0
"""Holds what the command prints with --json against the shipped schema."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import jsonschema

__all__ = ["hold"]


def hold(records: Sequence[dict[str, Any]]) -> None:
    """Fail if the last record of a type is not as the schema describes it.

    Only the last, because a validation takes long under emulation.
    """
    for record in {record["type"]: record for record in records}.values():
        _validator().validate(record)


@cache
def _validator() -> Any:
    text = files("batchprobe.output").joinpath("schema.json").read_text()
    return jsonschema.Draft202012Validator(json.loads(text))
