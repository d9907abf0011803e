# SPDX-License-Identifier: Apache-2.0
"""Which functions can return an error, and as what."""

from __future__ import annotations

from typing import Any, cast

import pytest
from btf import CHAR, LONG, Btf
from c_layout import RESULTS
from fake_maps import FakeMaps, probe, target

from batchprobe.actions import results
from batchprobe.actions.results import Results
from batchprobe.functions.signatures import Signatures
from batchprobe.kernel.btf_types import Encoding, Kind

IS = {name: RESULTS.constants[f"IS_{name}"] for name in ("NO_ERROR", "INT", "LONG", "UNKNOWN")}


@pytest.fixture(autouse=True)
def types(monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions are named after what they return."""
    btf = Btf()
    kinds = {
        "int": btf.integer("int", 4, Encoding.SIGNED),
        "long": btf.integer("long int", 8, Encoding.SIGNED),
        "short": btf.integer("short int", 2, Encoding.SIGNED),
        "unsigned": btf.integer("unsigned int", 4),
        "bool": btf.integer("_Bool", 1, Encoding.BOOLEAN),
        "enum": btf.enum("state", -1, 0, signed=True),
        "pointer": btf.add(Kind.POINTER, "", LONG),
        "text": btf.add(Kind.POINTER, "", CHAR),
        "struct": btf.composite("path", ("dentry", LONG, 0), size=16),
        "nothing": 0,
    }
    kinds["ssize"] = btf.add(Kind.TYPEDEF, "ssize_t", kinds["long"])
    for name, number in kinds.items():
        btf.function(f"returns_{name}", result=number)
    monkeypatch.setattr(
        results, "signatures_of", lambda _symbols: Signatures(None, lambda _module: btf.raw)
    )


def prepared(*names: str) -> tuple[Results, dict[str, str], dict[str, int]]:
    """What is refused, and the kinds of the others."""
    made = Results()
    probes = [probe(name, slot) for slot, name in enumerate(names, 1)]
    refused = made.prepare([each.target for each in probes], cast(Any, None))
    maps = FakeMaps({"results": len(names) + 1})
    left = [each for each in probes if each.target not in refused]
    made.fill(cast(Any, maps), left)
    cells = maps.arrays["results"].cells
    kinds = {each.target.name: cells[each.slot] for each in left}
    return made, {each.label: reason for each, reason in refused.items()}, kinds


def test_kinds() -> None:
    names = [f"returns_{kind}" for kind in ("int", "long", "ssize", "pointer", "text")]
    made, refused, kinds = prepared(*names)
    assert refused == made.untyped == {}
    assert list(kinds.values()) == [IS["INT"], *[IS["LONG"]] * 4]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("nothing", "it returns nothing"),
        ("unsigned", "it returns no error but unsigned int"),
        ("short", "it returns no error but short"),
        ("bool", "it returns no error but _Bool"),
        ("enum", "it returns no error but enum state"),
        ("struct", "it returns no error but struct path"),
    ],
)
def test_what_returns_no_error(kind: str, reason: str) -> None:
    _, refused, kinds = prepared(f"returns_{kind}", "returns_int")
    assert refused == {f"returns_{kind}": reason}
    assert kinds == {"returns_int": IS["INT"]}


def test_an_unknown_type_is_guessed() -> None:
    made, refused, kinds = prepared("in_assembly", "returns_int.isra.0")
    assert refused == {}
    assert set(kinds.values()) == {IS["UNKNOWN"]}
    assert made.untyped["returns_int.isra.0"] == "a variant that the compiler made (.isra.0)"
    assert made.untyped["in_assembly"].startswith("BTF leaves it out")


def test_each_slot_has_its_kind() -> None:
    made = Results()
    made.prepare([target("returns_int")], cast(Any, None))
    made.prepare([target("returns_long")], cast(Any, None))
    maps = FakeMaps({"results": 9})
    # Not those that were prepared, but others of the same names.
    made.fill(cast(Any, maps), [probe("returns_int", 3)])
    assert maps.arrays["results"].cells.tolist() == [IS["NO_ERROR"]] * 9
    assert Results.map(8).name == "results"
    assert Results.map(8).entries == 9
