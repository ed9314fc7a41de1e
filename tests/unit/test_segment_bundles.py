"""Bundles of a segment are hashed as they are specified."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from segments import tile_of

from compliance.audit.merkle import leaf_hash, root_of
from compliance.audit.segment.bundles import hash_entries, tile_root
from compliance.audit.tiles import (
    bundle_bytes,
    parse_bundle,
    parse_tile,
    stream_tiles,
)
from compliance.errors import MalformedProof


def test_a_leaf_hash_of_another_length_is_no_leaf_hash() -> None:
    with pytest.raises(MalformedProof):
        list(stream_tiles([b"x" * 31], read=tile_of))


@given(entries=st.lists(st.binary(max_size=300), min_size=1, max_size=256))
def test_entries_are_hashed_as_the_specification_says(entries: list[bytes]) -> None:
    data = bundle_bytes(entries)

    hashes, is_whole = hash_entries(data, width=len(entries))

    assert (parse_tile(hashes, width=len(entries)), is_whole) == ([leaf_hash(entry) for entry in entries], True)
    assert tile_root(hashes) == root_of(map(leaf_hash, entries))
    assert hash_entries(data, width=len(entries) + 1) == (hashes, False)
    assert not hash_entries(data + b"\0", width=len(entries))[1]


@given(data=st.binary(max_size=600), width=st.integers(1, 256))
def test_whatever_a_bundle_holds_it_is_whole_or_not(data: bytes, width: int) -> None:
    try:
        expected = [leaf_hash(entry) for entry in parse_bundle(data, width=width)]
    except MalformedProof:
        assert not hash_entries(data, width=width)[1]
    else:
        assert hash_entries(data, width=width) == (b"".join(expected), True)
