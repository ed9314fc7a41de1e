"""An identifier is found wherever it stands; those of others are not."""

import base64
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import bson
import pytest
from bson import Binary, ObjectId
from hypothesis import given
from hypothesis import strategies as st

from compliance.datamap.subject import Identity
from compliance.erasure.packed import layers
from compliance.erasure.sweep import (
    READ_AHEAD_BYTES,
    _read_ahead,
    _split,
    compile_needles,
    ids_in,
    long_ids_in,
    normalise,
)
from compliance.errors import StoreUnavailable

IDS = st.binary(min_size=12, max_size=12).map(ObjectId)
KEYS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=10)
CASES: list[Callable[[str], str]] = [str, str.upper, str.lower, str.title]
FORMS: list[Any] = ["NFC", "NFD", "NFKC", "NFKD"]
AROUND = [("", ""), ("mail ", "."), ("<", ">"), ("“", "”"), ("«", "»"), ("to=", "&x=1"), ("'", "'"), ("(", "),"),
          ("mailto:", "?subject=x"), ("—", "—"), ("", "。"), ("*", "*"), ("_", "_"), ("x\u200b", "\u200b"), ("[", "]-"),
          ("a@b.c;", ";d@e.f"), ("", "…"), ("\n", "\n"), ('"', '"')]  # fmt: skip
NUMBERS = st.integers(-(2**63), 2**63 - 1)
WORDS = st.text("abcdefghijklmnopqrstuvwxyzéüñßøж", min_size=1, max_size=8)
ADDRESSES = st.builds("{}.{}+x@{}.org".format, WORDS, WORDS, st.text("abcdefgh", min_size=1, max_size=5))


@st.composite
def hidden(draw: st.DrawFn, value: st.SearchStrategy[Any]) -> dict[str, Any]:
    """A document that holds a value somewhere."""
    found: Any = draw(value)
    for shape in draw(st.lists(st.sampled_from(["list", "dict", "both"]), max_size=4)):
        if shape != "dict":
            found = [*draw(st.lists(NUMBERS | KEYS, max_size=2)), found]
        if shape != "list":
            found = {"other": draw(KEYS), draw(KEYS): found}
    return {"_id": draw(st.integers(0, 9)), draw(KEYS.filter(lambda key: key != "_id")): found}


@given(oid=IDS, data=st.data())
def test_an_object_id_is_found_as_value_wherever_it_stands(oid: ObjectId, data: st.DataObject) -> None:
    assert compile_needles([Identity({"id": oid})]).found_in(bson.encode(data.draw(hidden(st.just(oid)))))


@given(
    oid=IDS,
    case=st.sampled_from(CASES),
    around=st.sampled_from([*AROUND, ("uid", "end"), ("abc", "def")]),
    data=st.data(),
)
def test_an_object_id_is_found_as_text_in_any_case(
    oid: ObjectId, case: Callable[[str], str], around: tuple[str, str], data: st.DataObject
) -> None:
    text = case(str(oid)).join(around)

    assert compile_needles([Identity({"id": oid})]).found_in(bson.encode(data.draw(hidden(st.just(text)))))


@given(oid=IDS, case=st.sampled_from([str, str.upper]), before=st.sampled_from(["", "user_", "likes/", "uid"]))
def test_an_object_id_is_found_as_the_name_of_a_field(oid: ObjectId, case: Callable[[str], str], before: str) -> None:
    document = {"_id": 1, "by_user": {before + case(str(oid)): 1}}

    assert compile_needles([Identity({"id": oid})]).found_in(bson.encode(document))


@given(uuid=st.uuids(), subtype=st.sampled_from([3, 4]), stored=st.sampled_from([3, 4]), data=st.data())
def test_a_uuid_is_found_in_both_subtypes(uuid: UUID, subtype: int, stored: int, data: st.DataObject) -> None:
    needles = compile_needles([Identity({"id": Binary(uuid.bytes, subtype)})])

    assert needles.found_in(bson.encode(data.draw(hidden(st.just(Binary(uuid.bytes, stored))))))


@given(uuid=st.uuids(), case=st.sampled_from([str.upper, str.lower]), around=st.sampled_from([*AROUND, ("uid", "e")]))
def test_a_uuid_is_found_as_text(uuid: UUID, case: Callable[[str], str], around: tuple[str, str]) -> None:
    for identity in (Identity({"id": uuid}), Identity({"id": Binary.from_uuid(uuid)})):
        assert compile_needles([identity]).found_in(bson.encode({"text": case(str(uuid)).join(around)}))


@given(
    address=ADDRESSES, case=st.sampled_from(CASES), form=st.sampled_from(FORMS), around=st.sampled_from(AROUND),
    data=st.data(),
)  # fmt: skip
def test_an_address_is_found_in_any_case_and_form_inside_any_text(
    address: str, case: Callable[[str], str], form: Any, around: tuple[str, str], data: st.DataObject
) -> None:
    text = unicodedata.normalize(form, case(address)).join(around)

    assert compile_needles([Identity({"email": address})]).found_in(bson.encode(data.draw(hidden(st.just(text)))))


@pytest.mark.parametrize("address", ["o'brien@x.org", "ann+tag@x.org", "a=b@x.org", "jürgen@müller.example", "a@b"])
@pytest.mark.parametrize("around", AROUND)
def test_addresses_with_odd_characters_are_found_too(address: str, around: tuple[str, str]) -> None:
    needles = compile_needles([Identity({"email": address})])

    assert needles.found_in(bson.encode({"text": address.join(around)}))
    assert needles.found_in(bson.encode({address.join(around): 1}))


@pytest.mark.parametrize(
    "text",
    ["joann@x.org", "jo.ann@x.org", "jo-ann@x.org", "ann@x.org.uk", "ann@x.orgy", "ann@y.x.org", "ann@xorg", "ann@x",
     "ann x.org", "ann@ x.org", "@x.org", "ann+tag@x.org", "änn@x.org", "ann_b@x.org"],
)  # fmt: skip
def test_addresses_of_others_are_not_taken_for_hers(text: str) -> None:
    assert not compile_needles([Identity({"email": "ann@x.org"})]).found_in(bson.encode({"text": text}))


@given(
    mine=st.tuples(IDS, st.uuids(), ADDRESSES),
    document=hidden(IDS | IDS.map(str) | st.uuids().map(Binary.from_uuid) | st.uuids().map(str) | ADDRESSES | NUMBERS),
)
def test_documents_of_others_are_not_found(mine: tuple[ObjectId, UUID, str], document: dict[str, Any]) -> None:
    text = unicodedata.normalize("NFKC", str(document)).casefold()
    needles = compile_needles([Identity(dict(zip("abc", mine, strict=True)))])
    stated = any(normalise(str(value)) in text for value in mine) or any(
        repr(form).casefold() in text for form in (mine[0], Binary.from_uuid(mine[1]))
    )

    assert stated or not needles.found_in(bson.encode(document))


@given(st.binary())
def test_no_bytes_make_it_crash(raw: bytes) -> None:
    needles = compile_needles([Identity({"a": ObjectId(), "b": "ann@x.org", "c": "u-7", "d": "customer-00000001"})])

    assert needles.found_in(raw) in (True, False)


@pytest.mark.parametrize(("value", "found"), [("u-7", True), ("u-77", False), ("xu-7", False), ("see u-7", False)])
def test_a_short_id_matches_a_whole_value_only(value: str, *, found: bool) -> None:
    needles = compile_needles([Identity({"id": "u-7"})])

    assert needles.found_in(bson.encode({"list": [{"who": value}]})) is found


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("customer-00000001", True),
        ("see customer-00000001, please", True),
        ("/customer-00000001/", True),
        ("customer-000000012", False),
        ("xcustomer-00000001", False),
        ("customer-000000012 and customer-00000001", True),
    ],
)
def test_a_long_id_is_found_in_any_text_but_not_in_a_longer_id(value: str, *, found: bool) -> None:
    needles = compile_needles([Identity({"id": "customer-00000001"})])

    assert needles.found_in(bson.encode({"text": value})) is found


@pytest.mark.parametrize("handle", ["@ann_the_great", "ann smith@home"])
def test_a_text_that_is_no_address_is_found_as_it_stands(handle: str) -> None:
    assert compile_needles([Identity({"handle": handle})]).found_in(bson.encode({"a": [handle]}))


@given(people=st.lists(st.tuples(IDS, ADDRESSES), min_size=1, max_size=30), data=st.data())
def test_many_people_are_looked_for_at_once(people: list[tuple[ObjectId, str]], data: st.DataObject) -> None:
    needles = compile_needles(Identity({"id": oid, "email": address}) for oid, address in people)
    oid, address = data.draw(st.sampled_from(people))

    assert needles.found_in(bson.encode(data.draw(hidden(st.sampled_from([oid, str(oid), address, f"<{address}>"])))))


@given(oid=IDS, uuid=st.uuids(), data=st.data())
def test_what_could_be_an_id_is_named_as_requests_hold_it(oid: ObjectId, uuid: UUID, data: st.DataObject) -> None:
    forms = {oid: oid, f"by{oid}": oid, Binary(uuid.bytes, 3): uuid, str(uuid).upper(): uuid}
    form, id_ = data.draw(st.sampled_from(list(forms.items())))

    assert (Binary.from_uuid(id_) if isinstance(id_, UUID) else id_) in set(
        ids_in(bson.encode(data.draw(hidden(st.just(form)))))
    )


@given(id_=st.from_regex(r"[ab0][ab0_.:-]{15,30}", fullmatch=True), around=st.text("ab0_.:- /é", max_size=3))
def test_what_could_be_a_long_id_is_named_exactly_where_it_would_be_found(id_: str, around: str) -> None:
    for text in (f"{around}{id_}", f"{id_}{around}", f"{around}{id_}{around}"):
        raw = bson.encode({"a": [text]})

        assert (id_ in set(long_ids_in(raw))) == compile_needles([Identity({"id": id_})]).found_in(raw)


def test_long_ids_are_named_up_to_the_longest_one_there_may_be() -> None:
    raw = bson.encode({"a": "x" * 127 + ".y", "b": "z" * 129, "c": "w" * 128, "d": "v" * 15})

    assert set(long_ids_in(raw)) == {"x" * 127, "w" * 128}


def test_nobody_is_found_nowhere() -> None:
    assert not compile_needles([]).found_in(bson.encode({"_id": ObjectId(), "email": "ann@x.org"}))


def test_needles_show_no_personal_value() -> None:
    assert "ann" not in repr(compile_needles([Identity({"email": "ann@x.org", "handle": "ann"})]))


@given(st.lists(hidden(NUMBERS | KEYS), max_size=8))
def test_a_batch_is_split_into_the_documents_that_made_it(documents: list[dict[str, Any]]) -> None:
    encoded = [bson.encode(document) for document in documents]

    assert [found.raw for found in _split(b"".join(encoded))] == encoded


@pytest.mark.parametrize("size", [1, READ_AHEAD_BYTES])
@pytest.mark.parametrize("batches", [0, 1, 4])
def test_batches_that_are_read_ahead_come_once_and_in_order(size: int, batches: int) -> None:
    sent = [bytes([number]) * size for number in range(batches)]

    assert list(_read_ahead(iter(sent))) == sent


@pytest.mark.parametrize("size", [1, READ_AHEAD_BYTES])
def test_an_error_while_reading_ahead_comes_behind_the_batches_before_it(size: int) -> None:
    def batches() -> Iterator[bytes]:
        yield b"a" * size
        raise StoreUnavailable("away")

    ahead = _read_ahead(batches())

    assert next(ahead) == b"a" * size
    with pytest.raises(StoreUnavailable):
        next(ahead)


@pytest.mark.parametrize("digits", [24, 25, 47, 48, 64])
@pytest.mark.parametrize("at", [0, 1, -24])
def test_an_id_is_found_anywhere_within_a_longer_run_of_digits(digits: int, at: int) -> None:
    oid = ObjectId("5e" * 12)
    run = "a" * digits
    start = at % (digits - 23)
    text = run[:start] + str(oid) + run[start + 24 :]

    assert compile_needles([Identity({"id": oid})]).found_in(
        bson.encode({"first": "abc", "then": text, "end": "g" * 30})
    )
    assert not compile_needles([Identity({"id": oid})]).found_in(bson.encode({"text": run}))


def test_text_without_an_address_costs_one_look() -> None:
    # 1 MB of base64 took 20 s when every position could begin an address.
    raw = bson.encode({"blob": "A" * 1_000_000})

    assert not compile_needles([Identity({"email": "ann@x.org"})]).found_in(raw)


@pytest.mark.parametrize(
    "text",
    [
        "联系li.wei@example.org谢谢",
        "http://x.org/?q=li.wei%40example.org&n=1",
        "連絡先LI.WEI@EXAMPLE.ORG",
        "a li.wei@example.orgです",
    ],
)
def test_an_address_that_stands_right_beside_other_letters_is_found(text: str) -> None:
    needles = compile_needles([Identity({"email": "Li.Wei@example.org"})])

    assert needles.found_in(bson.encode({"notes": [{"text": text}]}))


def in_base64(raw: bytes) -> bytes:
    return base64.b64encode(raw)


def in_lines(raw: bytes) -> bytes:
    return base64.encodebytes(raw * 3)


PACKED: list[Callable[[bytes], bytes]] = [
    in_base64,
    base64.urlsafe_b64encode,
    in_lines,
    lambda raw: raw.hex().encode(),
    lambda raw: raw.hex().upper().encode(),
    lambda raw: "".join(f"%{byte:02x}" for byte in raw).encode(),
    lambda raw: quote(in_base64(raw)).encode(),
]
PERSON = {"id": ObjectId("65f0000000000000000000aa"), "email": "Ann.Example@x.org", "ref": "customer-00000001",
          "uuid": UUID("0f8fad5b-d9cb-469f-a165-70867728950e")}  # fmt: skip


@given(
    key=st.sampled_from(sorted(PERSON)),
    case=st.sampled_from([str, str.upper]),
    before=st.binary(max_size=9).map(lambda raw: raw + b" "),
    pack=st.sampled_from(PACKED),
    around=st.sampled_from(["", "/", "v1.", "data:text/plain;base64,", "abc/"]),
)
def test_an_identifier_is_found_in_base64_at_each_offset_in_hex_and_in_percent_encoding(
    key: str, case: Callable[[str], str], before: bytes, pack: Callable[[bytes], bytes], around: str
) -> None:
    text = (str if key == "ref" else case)(str(PERSON[key]))
    needles = compile_needles([Identity({key: PERSON[key]})])
    packed = around + pack(before + text.encode() + b", and more").decode()

    assert needles.found_in(bson.encode({"_id": 1, "of": [{"text": packed}]}))


@pytest.mark.parametrize("raw", [PERSON["id"].binary, b"x" + PERSON["id"].binary, PERSON["uuid"].bytes])
@pytest.mark.parametrize("people", [1, 30])
def test_the_bytes_of_an_id_are_found_in_base64_and_hex(raw: bytes, people: int) -> None:
    others = [Identity({"id": ObjectId(), "uuid": uuid4()}) for _ in range(people - 1)]
    needles = compile_needles([Identity(PERSON), *others])
    found = [
        needles.found_in(bson.encode({"token": pack(raw).decode()}))
        for pack in (in_base64, lambda raw: raw.hex().encode())
    ]

    assert found == [people == 1, True]


@given(
    document=hidden(st.binary(max_size=60).map(lambda raw: base64.b64encode(raw).decode()) | st.binary(max_size=60)),
    people=st.sampled_from([1, 30]),
)
def test_what_is_packed_is_not_taken_for_hers(document: dict[str, Any], people: int) -> None:
    needles = compile_needles([Identity(PERSON), *(Identity({"id": ObjectId()}) for _ in range(people - 1))])

    assert not needles.found_in(bson.encode(document))


@given(st.binary(max_size=400))
def test_layers_hold_what_was_there_and_what_was_packed(raw: bytes) -> None:
    packed = base64.b64encode(b"needle in a haystack" + raw)
    found = list(layers(raw + b" " + packed + b" " + (b"another needle!!" + raw).hex().encode()))

    assert found[0].startswith(raw)
    assert b"needle in a haystack" in found[-1]
    assert b"another needle!!" in found[-1]


def test_a_megabyte_in_base64_costs_no_more_than_a_few_looks() -> None:
    raw = bson.encode({"blob": base64.b64encode(bytes(range(256)) * 4000).decode()})

    assert not compile_needles([Identity({"email": "ann@x.org"})]).found_in(raw)
