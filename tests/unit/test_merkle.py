"""Proofs show what is so, and nothing else."""

import hashlib
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compliance.audit.merkle import (
    EMPTY_ROOT,
    Frontier,
    leaf_hash,
    node_hash,
    nodes_of,
    prove_consistency,
    prove_inclusion,
    read_frontier,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from compliance.errors import InvalidProof, MalformedProof

# The vectors of the Certificate Transparency implementations: eight leaves, the roots of the trees over the first n.
LEAVES = [
    leaf_hash(bytes.fromhex(leaf))
    for leaf in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
LEAF_2 = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
NODE_3_4 = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
NODE_5_6 = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"
NODE_7_8 = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
NODE_5_8 = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"
LEAF_5 = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"

MANY = [leaf_hash(number.to_bytes(2, "big")) for number in range(600)]
NODES = nodes_of(MANY)
MANY_ROOTS = [root_of(MANY[:size]) for size in range(601)]
SIZES = st.integers(1, 600)


def recursive_root(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962 section 2.1, word by word."""
    if len(leaves) == 0:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + recursive_root(leaves[:k]) + recursive_root(leaves[k:])).digest()


def some_of(size: int) -> Iterator[int]:
    """Every number below a small size; of a large one the ends, the middle, around powers of two, and a sample."""
    if size <= 66:
        yield from range(size)
        return
    powers = {2**power + around for power in range(10) for around in (-1, 0, 1)}
    edges = {0, size // 2, size - 2, size - 1}
    yield from sorted(number for number in powers | edges | set(range(size % 97, size, 97)) if number < size)


@pytest.mark.parametrize("size", range(9))
def test_the_roots_are_those_of_the_published_vectors(size: int) -> None:
    leaves = LEAVES[:size]

    assert (root_of(leaves).hex(), Frontier().extended(leaves).root.hex()) == (ROOTS[size], ROOTS[size])


@pytest.mark.parametrize(
    ("index", "size", "proof"),
    [
        (0, 1, []),
        (0, 8, [LEAF_2, NODE_3_4, NODE_5_8]),
        (5, 8, [LEAF_5, NODE_7_8, ROOTS[4]]),
        (2, 3, [ROOTS[2]]),
        (1, 5, [ROOTS[1], NODE_3_4, LEAF_5]),
    ],
)
def test_inclusion_proofs_are_those_of_the_published_vectors(index: int, size: int, proof: list[str]) -> None:
    found = prove_inclusion(index, size=size, node=nodes_of(LEAVES))

    assert [part.hex() for part in found] == proof


@pytest.mark.parametrize(
    ("first", "second", "proof"),
    [
        (1, 1, []),
        (1, 8, [LEAF_2, NODE_3_4, NODE_5_8]),
        (6, 8, [NODE_5_6, NODE_7_8, ROOTS[4]]),
        (2, 5, [NODE_3_4, LEAF_5]),
    ],
)
def test_consistency_proofs_are_those_of_the_published_vectors(first: int, second: int, proof: list[str]) -> None:
    found = prove_consistency(first, second, node=nodes_of(LEAVES))

    assert [part.hex() for part in found] == proof


def test_every_root_up_to_600_is_the_recursive_one() -> None:
    frontier = Frontier()
    for size, root in enumerate(MANY_ROOTS):
        if size:
            frontier = frontier.extended([MANY[size - 1]])

        assert frontier.root == root
        assert size % 7 or recursive_root(MANY[:size]) == root
        assert read_frontier(size, NODES) == frontier


def test_leaves_of_every_size_up_to_600_are_proven() -> None:
    for size in range(1, 601):
        for index in some_of(size):
            proof = prove_inclusion(index, size=size, node=NODES)

            verify_inclusion(proof, leaf=MANY[index], index=index, size=size, root=MANY_ROOTS[size])
            assert len(proof) <= (size - 1).bit_length()


def test_growth_between_sizes_up_to_600_is_proven() -> None:
    for second in range(601):
        for first in (*some_of(second), second):
            proof = prove_consistency(first, second, node=NODES)

            verify_consistency(
                proof, first=first, first_root=MANY_ROOTS[first], second=second, second_root=MANY_ROOTS[second]
            )
            assert len(proof) <= (second - 1).bit_length() + 1


@pytest.mark.parametrize("size", [1, 2, 7, 8, 600])
def test_a_proof_with_a_hash_too_many_or_too_few_is_refused(size: int) -> None:
    inclusion = prove_inclusion(size // 2, size=size, node=NODES)
    consistency = prove_consistency(size // 2, size, node=NODES)
    for changed in ([*inclusion, EMPTY_ROOT], *([inclusion[:-1]] if inclusion else [])):
        with pytest.raises(InvalidProof, match=r"too many|too few"):
            verify_inclusion(changed, leaf=MANY[size // 2], index=size // 2, size=size, root=MANY_ROOTS[size])
    for changed in ([*consistency, EMPTY_ROOT], *([consistency[:-1]] if consistency else [])):
        with pytest.raises(InvalidProof, match=r"too many|too few|empty"):
            verify_consistency(
                changed,
                first=size // 2,
                first_root=MANY_ROOTS[size // 2],
                second=size,
                second_root=MANY_ROOTS[size],
            )


@given(size=SIZES, data=st.data())
def test_an_inclusion_proof_shows_one_leaf_at_one_place_of_one_tree(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof = prove_inclusion(index, size=size, node=NODES)
    right = {"leaf": MANY[index], "index": index, "size": size, "root": MANY_ROOTS[size]}
    wrong = data.draw(
        st.sampled_from(
            [
                {"leaf": MANY[index - 1] if size > 1 else EMPTY_ROOT},
                {"leaf": leaf_hash(MANY[index])},
                {"index": size},
                {"index": -1},
                {"size": 0},
                {"root": MANY_ROOTS[size - 1]},
                *({"index": other} for other in range(index & ~7, min((index & ~7) + 8, size)) if other != index),
            ]
        )
    )
    with pytest.raises(InvalidProof):
        verify_inclusion(proof, **(right | wrong))


@given(size=st.integers(2, 600), data=st.data())
def test_any_change_of_an_inclusion_proof_is_found(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof = prove_inclusion(index, size=size, node=NODES)
    changed = data.draw(changes_of(proof))
    with pytest.raises(InvalidProof):
        verify_inclusion(changed, leaf=MANY[index], index=index, size=size, root=MANY_ROOTS[size])


@given(second=st.integers(2, 600), data=st.data())
def test_any_change_of_a_consistency_proof_is_found(second: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, second))
    proof = prove_consistency(first, second, node=NODES)
    changed = data.draw(changes_of(proof))
    with pytest.raises(InvalidProof):
        verify_consistency(
            changed, first=first, first_root=MANY_ROOTS[first], second=second, second_root=MANY_ROOTS[second]
        )


def changes_of(proof: list[bytes]) -> st.SearchStrategy[list[bytes]]:
    """One bit, one hash more or fewer, two exchanged, one of another length: all of them another proof."""
    places = st.integers(0, max(len(proof) - 1, 0))
    longer = st.builds(
        lambda place, extra: [*proof[:place], extra, *proof[place:]],
        st.integers(0, len(proof)),
        st.sampled_from([EMPTY_ROOT, *MANY[:3], *MANY_ROOTS[:9]]),
    )
    if not proof:
        return longer
    flipped = st.builds(
        lambda place, byte, bit: [
            *proof[:place],
            bytes(value ^ (bit if at == byte else 0) for at, value in enumerate(proof[place])),
            *proof[place + 1 :],
        ],
        places,
        st.integers(0, 31),
        st.sampled_from([1 << bit for bit in range(8)]),
    )
    shorter = places.map(lambda place: proof[:place] + proof[place + 1 :])
    resized = st.builds(
        lambda place, data: [*proof[:place], data, *proof[place + 1 :]],
        places,
        st.sampled_from([proof[0][:31], proof[0] + b"\x00", b""]),
    )
    turned = st.just(proof[::-1]).filter(lambda other: other != proof)
    changes = [flipped, longer, shorter, resized, *([turned] if len(proof) > 1 else [])]
    return st.one_of(changes)


@given(second=st.integers(2, 600), data=st.data())
def test_a_consistency_proof_does_not_show_another_history(second: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(1, second - 1))
    proof = prove_consistency(first, second, node=NODES)
    right = {"first": first, "first_root": MANY_ROOTS[first], "second": second, "second_root": MANY_ROOTS[second]}
    forked = root_of([*MANY[: first - 1], EMPTY_ROOT, *MANY[first:second]])
    wrong = data.draw(
        st.sampled_from(
            [
                {"first_root": MANY_ROOTS[first - 1]},
                {"second_root": MANY_ROOTS[second - 1]},
                {"second_root": forked},
                {"first": 0},
                {"first": second},
                {"first": second + 1},
                {"second": first},
                {"first": -1},
            ]
        )
    )
    with pytest.raises(InvalidProof):
        verify_consistency(proof, **(right | wrong))


@pytest.mark.parametrize("second", [1, 2, 3, 600])
def test_from_the_empty_tree_only_its_own_root_is_consistent(second: int) -> None:
    verify_consistency([], first=0, first_root=EMPTY_ROOT, second=second, second_root=MANY_ROOTS[second])
    with pytest.raises(InvalidProof):
        verify_consistency([], first=0, first_root=MANY_ROOTS[1], second=second, second_root=MANY_ROOTS[second])


def test_two_empty_trees_have_the_empty_root() -> None:
    verify_consistency([], first=0, first_root=EMPTY_ROOT, second=0, second_root=EMPTY_ROOT)
    with pytest.raises(InvalidProof):
        verify_consistency([], first=0, first_root=EMPTY_ROOT, second=0, second_root=MANY_ROOTS[1])


def test_equal_sizes_are_consistent_with_equal_roots_only() -> None:
    with pytest.raises(InvalidProof):
        verify_consistency([], first=5, first_root=MANY_ROOTS[5], second=5, second_root=MANY_ROOTS[4])


@pytest.mark.parametrize(("index", "size"), [(0, 0), (1, 1), (-1, 3)])
def test_no_proof_is_made_for_a_leaf_that_is_not_there(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="no leaf"):
        prove_inclusion(index, size=size, node=NODES)


@pytest.mark.parametrize(("first", "second"), [(-1, 3), (4, 3)])
def test_no_proof_is_made_for_a_tree_that_shrank(first: int, second: int) -> None:
    with pytest.raises(ValueError, match="not the beginning"):
        prove_consistency(first, second, node=NODES)


@given(parts=st.lists(st.integers(0, 60), max_size=10))
def test_a_frontier_that_was_stored_and_read_goes_on_like_one_that_was_not(parts: list[int]) -> None:
    frontier = Frontier()
    for part in parts:
        frontier = frontier.extended(MANY[frontier.size : frontier.size + part])
        stored = {"size": frontier.size, "hashes": list(frontier.hashes)}
        frontier = Frontier(stored["size"], tuple(stored["hashes"]))

    assert (frontier.size, frontier.root) == (sum(parts), MANY_ROOTS[sum(parts)])


@pytest.mark.parametrize(
    ("size", "hashes"), [(1, ()), (0, (EMPTY_ROOT,)), (3, (EMPTY_ROOT,)), (-1, ()), (1, (b"short",))]
)
def test_a_frontier_that_no_tree_has_is_refused(size: int, hashes: tuple[bytes, ...]) -> None:
    with pytest.raises(MalformedProof):
        Frontier(size, hashes)


@pytest.mark.parametrize("wrong", [b"", b"the bytes of a leaf", EMPTY_ROOT + b"\x00"])
def test_what_is_not_a_hash_gets_into_no_tree(wrong: bytes) -> None:
    for make in (root_of, nodes_of, Frontier().extended):
        with pytest.raises(MalformedProof):
            make([EMPTY_ROOT, wrong])


def test_a_node_is_never_a_leaf() -> None:
    left, right = LEAVES[:2]

    assert node_hash(left, right) != leaf_hash(left + right)
