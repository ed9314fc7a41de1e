"""Tiles and bundles are where the specification says, and hold the tree."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compliance.audit.merkle import (
    Frontier,
    leaf_hash,
    nodes_of,
    prove_consistency,
    prove_inclusion,
    read_frontier,
    root_of,
)
from compliance.audit.tiles import (
    WIDTH,
    Bundle,
    Edge,
    Tile,
    bundle_bytes,
    bundles_between,
    nodes_in_tiles,
    parse_bundle,
    parse_path,
    parse_tile,
    read_edge,
    stream_tiles,
    tiles_between,
)
from compliance.errors import MalformedProof

LEAVES = [leaf_hash(number.to_bytes(4, "big")) for number in range(70_000)]
NODES = nodes_of(LEAVES)
ALL = dict(stream_tiles(LEAVES, read=lambda tile: pytest.fail(f"{tile.path} is not there yet")))
WIDEST = {(tile.level, tile.index): data for tile, data in ALL.items()}
# Computed by golang.org/x/mod/sumdb/tlog over the same leaves.
ROOTS = {
    255: "58f204dcc06ebcf29082c362701341df88ec3d5f338036c72a98894aaf69059d",
    257: "086ce24d72dd8347eef9afbf95829379f67cee8f5d23cece828a2dae88729c8d",
    1000: "ed58fe22105717ceedf760a43eedfb173a60c44ef40fd61b6cd86bd4ebb59b61",
    65537: "a919470e091dba7c96b77d370fdea7c7d88d58c8f35cfad49a9fa284b228b74d",
    70000: "339ecf3ae716405fdc28cef164e45a785cade0d5bc3e1400a7a4d70d0b2dec9b",
}
SIZES = st.integers(0, 3000) | st.sampled_from([255, 256, 257, 65_535, 65_536, 65_537, 70_000])


def stored(tile: Tile) -> bytes:
    """The tile of 70,000 leaves at that place, which for a smaller tree is a wider one."""
    return WIDEST[tile.level, tile.index]


@pytest.mark.parametrize(
    ("place", "path"),
    [
        (Tile(0, 0), "tile/0/000"),
        (Tile(0, 273, 112), "tile/0/273.p/112"),
        (Tile(1, 1234067), "tile/1/x001/x234/067"),
        (Tile(2, 1000, 1), "tile/2/x001/000.p/1"),
        (Tile(63, 999, 255), "tile/63/999.p/255"),
        (Bundle(1234067, 8), "tile/entries/x001/x234/067.p/8"),
        (Bundle(7), "tile/entries/007"),
    ],
)
def test_a_path_and_its_place_are_the_same_thing(place: Tile | Bundle, path: str) -> None:
    assert (place.path, parse_path(path)) == (path, place)


@given(level=st.integers(0, 63), index=st.integers(0, 10**15), width=st.integers(1, 256))
def test_every_place_is_found_by_its_path(level: int, index: int, width: int) -> None:
    assert parse_path(Tile(level, index, width).path) == Tile(level, index, width)
    assert parse_path(Bundle(index, width).path) == Bundle(index, width)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile/0/0",
        "tile/0/0000",
        "tile/00/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/0/x000/001",
        "tile/0/001/002",
        "tile/0/x001",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/999",
        "tile/0/000.p/01",
        "tile/0/000.p/",
        "tile/0/000/",
        "/tile/0/000",
        "tile/data/000",
        "tile/0/000\n",
        "tile/0/\u0660\u0660\u0660",
        "tile/0/../000",
        "tile/8/0/000",
    ],
)
def test_no_other_text_is_a_path(path: str) -> None:
    with pytest.raises(MalformedProof):
        parse_path(path)


def test_the_tiles_of_70000_leaves_are_those_of_the_example_in_the_specification() -> None:
    tiles = list(tiles_between(0, 70_000))

    assert [tile for tile in tiles if tile.level > 0 or tile.width < 256] == [
        Tile(0, 273, 112),
        Tile(1, 0),
        Tile(1, 1, 17),
        Tile(2, 0, 1),
    ]
    assert [tile for tile in tiles if tile.level == 0 and tile.width == 256] == [Tile(0, n) for n in range(273)]


def test_256_leaves_are_a_full_tile_and_a_partial_one_above() -> None:
    assert list(tiles_between(0, 256)) == [Tile(0, 0), Tile(1, 0, 1)]
    assert list(bundles_between(0, 256)) == [Bundle(0)]
    assert list(bundles_between(0, 257)) == [Bundle(0), Bundle(1, 1)]


@pytest.mark.parametrize(("first", "second"), [(0, 0), (5, 5), (256, 256), (9, 3)])
def test_what_does_not_grow_adds_nothing(first: int, second: int) -> None:
    assert (list(tiles_between(first, second)), list(bundles_between(first, second))) == ([], [])


@given(first=SIZES, second=SIZES)
def test_the_tiles_of_two_steps_are_those_of_one(first: int, second: int) -> None:
    first, second = sorted((first, second))
    before = set(tiles_between(0, first))
    after = set(tiles_between(0, second))
    added = list(tiles_between(first, second))

    assert len(added) == len(set(added))
    assert set(added) == after - before
    assert {tile for tile in before if tile.width == 256} <= after


@given(first=SIZES, second=SIZES)
def test_an_edge_fills_the_full_tiles_that_are_missing_with_the_hashes_of_the_tree(first: int, second: int) -> None:
    first, second = sorted((first, second))
    edge, _ = read_edge(first, stored).extended([])
    after, full = edge.extended(LEAVES[first:second])

    assert (edge.size, after.size) == (first, second)
    assert [tile for tile, _ in full] == [tile for tile in tiles_between(first, second) if tile.width == WIDTH]
    for tile, data in full:
        begin = tile.index * 256
        assert parse_tile(data, width=tile.width) == [
            NODES(8 * tile.level, number) for number in range(begin, begin + tile.width)
        ]


@pytest.mark.parametrize("size", ROOTS)
def test_the_root_from_tiles_is_the_one_that_go_computes(size: int) -> None:
    frontier = read_frontier(size, nodes_in_tiles(size, read=stored))

    assert (frontier.root.hex(), root_of(LEAVES[:size]).hex()) == (ROOTS[size], ROOTS[size])
    assert frontier == Frontier().extended(LEAVES[:size])


@given(size=st.integers(1, 70_000), data=st.data())
def test_proofs_from_tiles_are_those_from_leaves(size: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, size))
    index = data.draw(st.integers(0, size - 1))
    needed = set(tiles_between(0, size))

    def read(tile: Tile) -> bytes:
        assert tile in needed
        return stored(tile)

    node = nodes_in_tiles(size, read=read)

    assert prove_inclusion(index, size=size, node=node) == prove_inclusion(index, size=size, node=NODES)
    assert prove_consistency(first, size, node=node) == prove_consistency(first, size, node=NODES)


@pytest.mark.parametrize(("level", "index"), [(0, 300), (0, -1), (1, 150), (8, 1), (9, 0)])
def test_a_node_that_the_tree_does_not_have_is_not_read(level: int, index: int) -> None:
    node = nodes_in_tiles(300, read=lambda tile: pytest.fail(f"{tile.path} was read"))
    with pytest.raises(ValueError, match="no node"):
        node(level, index)


@pytest.mark.parametrize("data", [b"", b"\x00" * 31, b"\x00" * 32 * 9, b"\x00" * 321, b"\x00" * 32 * 257])
def test_a_tile_of_another_length_is_refused(data: bytes) -> None:
    node = nodes_in_tiles(10, read=lambda _: data)
    with pytest.raises(MalformedProof):
        node(0, 3)
    with pytest.raises(MalformedProof):
        parse_tile(data, width=10)


def test_what_is_not_a_hash_gets_into_no_tile() -> None:
    with pytest.raises(MalformedProof):
        Edge().extended([b"the bytes of a leaf"])


def test_a_tile_is_read_once_for_a_proof() -> None:
    asked: list[Tile] = []

    def read(tile: Tile) -> bytes:
        asked.append(tile)
        return stored(tile)

    prove_inclusion(69_000, size=70_000, node=nodes_in_tiles(70_000, read=read))

    assert len(asked) == len(set(asked)) <= 5


@given(entries=st.lists(st.binary(max_size=40), min_size=1, max_size=256))
def test_a_bundle_gives_back_its_entries(entries: list[bytes]) -> None:
    assert parse_bundle(bundle_bytes(entries), width=len(entries)) == entries


def test_a_bundle_is_laid_out_as_specified() -> None:
    assert bundle_bytes([b"a", b"", b"x" * 258]) == b"\x00\x01a" + b"\x00\x00" + b"\x01\x02" + b"x" * 258


@pytest.mark.parametrize("count", [0, 257])
def test_a_bundle_holds_1_to_256_entries(count: int) -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        bundle_bytes([b"x"] * count)


def test_an_entry_holds_what_its_length_can_say() -> None:
    assert parse_bundle(bundle_bytes([b"x" * 65_535]), width=1) == [b"x" * 65_535]
    with pytest.raises(ValueError, match="65535"):
        bundle_bytes([b"x" * 65_536])


@given(entries=st.lists(st.binary(max_size=5), min_size=1, max_size=5), cut=st.integers(1, 34))
def test_a_bundle_that_was_cut_is_refused(entries: list[bytes], cut: int) -> None:
    data = bundle_bytes(entries)
    with pytest.raises(MalformedProof):
        parse_bundle(data[: max(len(data) - cut, 0)], width=len(entries))


@pytest.mark.parametrize("width", [1, 3])
def test_a_bundle_of_another_width_is_refused(width: int) -> None:
    with pytest.raises(MalformedProof):
        parse_bundle(bundle_bytes([b"a", b"b"]), width=width)


def test_a_bundle_hashes_to_the_tile_of_the_same_place() -> None:
    entries = [number.to_bytes(4, "big") for number in range(256)]
    hashes = list(map(leaf_hash, parse_bundle(bundle_bytes(entries), width=256)))

    assert b"".join(hashes) == ALL[Tile(0, 0)]
    assert root_of(hashes) == parse_tile(ALL[Tile(1, 0)], width=256)[0]


@pytest.mark.parametrize("place", [(-1, 0, 1), (64, 0, 1), (0, -1, 1), (0, 0, 0), (0, 0, 257)])
def test_no_tile_is_outside_of_the_tree(place: tuple[int, int, int]) -> None:
    with pytest.raises(MalformedProof):
        Tile(*place)


@pytest.mark.parametrize("place", [(-1, 1), (0, 0), (0, 257)])
def test_no_bundle_is_outside_of_the_log(place: tuple[int, int]) -> None:
    with pytest.raises(MalformedProof):
        Bundle(*place)


@given(size=st.integers(0, 1400), parts=st.lists(st.integers(0, 700), max_size=4))
def test_an_edge_grows_as_the_tree_of_its_tiles(size: int, parts: list[int]) -> None:
    total = size + sum(parts)
    leaves = [leaf_hash(b"%d" % number) for number in range(total)]
    whole = dict(stream_tiles(leaves, read=lambda _: b""))
    edge, full = Edge().extended(leaves[:size])
    for part in parts:
        edge, more = edge.extended(leaves[edge.size : edge.size + part])
        full += more

    assert dict(full) == {tile: data for tile, data in whole.items() if tile.width == WIDTH}
    assert edge.frontier == Frontier().extended(leaves)
    if total:
        assert read_edge(total, whole.__getitem__) == edge
