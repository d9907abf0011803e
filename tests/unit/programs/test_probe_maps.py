# SPDX-License-Identifier: Apache-2.0
"""Hits, and buckets of instruction pointers: the parts of probe_maps that need no maps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from recorded import recorded

from batchprobe.functions.kallsyms import parse_kallsyms
from batchprobe.programs.probe_maps import Hits, bucket_of

HITS = st.integers(0, 2**63)


@given(st.data(), st.integers(1, 5), st.integers(1, 9))
def test_hits_of_all_cpus_are_added_up(data: st.DataObject, cpus: int, slots: int) -> None:
    rows = [data.draw(st.lists(HITS, min_size=slots, max_size=slots)) for _ in range(cpus)]
    claimed = data.draw(st.dictionaries(st.integers(0, slots - 1), HITS))
    cells = memoryview(b"".join(hits.to_bytes(8, "little") for row in rows for hits in row)).cast(
        "Q"
    )
    found = Hits(cells, cpus, claimed)
    for slot in range(slots):
        assert found[slot] == sum(row[slot] for row in rows) + claimed.get(slot, 0)


def test_known_sums_are_returned() -> None:
    assert Hits.of({3: 5})[3] == 5


@given(st.integers(0, 2**64 - 1), st.integers(0, 17))
def test_a_bucket_is_in_range(ip: int, bits: int) -> None:
    assert 0 <= bucket_of(ip, bits) < 1 << bits


def test_few_functions_share_a_bucket() -> None:
    addresses = set(parse_kallsyms(recorded("debian-12", "kallsyms").decode()).addresses)
    bits = (8 * len(addresses)).bit_length()
    buckets = {bucket_of(address + 5, bits) for address in addresses}
    assert len(buckets) > 0.9 * len(addresses)
