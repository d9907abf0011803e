"""Counts of a moment, and who leaves with whom: the parts that need no maps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from recorded import recorded

from batchprobe.functions.kallsyms import parse_kallsyms
from batchprobe.programs.probe_maps import Counts, place_of

HITS = st.integers(0, 2**63)


@given(st.data(), st.integers(1, 5), st.integers(1, 9))
def test_hits_of_all_cpus_are_added_up(data: st.DataObject, cpus: int, slots: int) -> None:
    rows = [data.draw(st.lists(HITS, min_size=slots, max_size=slots)) for _ in range(cpus)]
    adopted = data.draw(st.dictionaries(st.integers(0, slots - 1), HITS))
    cells = memoryview(b"".join(hits.to_bytes(8, "little") for row in rows for hits in row)).cast(
        "Q"
    )
    counts = Counts(cells, cpus, adopted)
    for slot in range(slots):
        assert counts[slot] == sum(row[slot] for row in rows) + adopted.get(slot, 0)


def test_those_that_are_known_are_given() -> None:
    assert Counts({3: 5}, 2, {})[3] == 5


@given(st.integers(0, 2**64 - 1), st.integers(0, 17))
def test_places_are_those_there_are(ip: int, bits: int) -> None:
    assert 0 <= place_of(ip, bits) < 1 << bits


def test_few_functions_share_a_place() -> None:
    addresses = set(parse_kallsyms(recorded("debian-12", "kallsyms").decode()).addresses)
    bits = (8 * len(addresses)).bit_length()
    places = {place_of(address + 5, bits) for address in addresses}
    assert len(places) > 0.9 * len(addresses)
