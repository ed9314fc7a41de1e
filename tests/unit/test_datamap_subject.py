"""Ids as they arrive and as documents hold them."""

from typing import Any
from uuid import UUID

import pytest
import yaml
from bson import Binary, ObjectId
from hypothesis import given
from hypothesis import strategies as st

from compliance.datamap.model import DataMap
from compliance.datamap.subject import Identity, parse_subject_id, read_identity, to_entity_id, to_text, value_at
from compliance.errors import InvalidPayload
from compliance.settings import DATA_MAP


def map_of(kind: str, key: str = "user_id") -> DataMap:
    content = yaml.safe_load(DATA_MAP.read_text())
    content["subject"]["key"] = key
    content["subject"]["keys"]["user_id"]["type"] = kind
    return DataMap.model_validate(content)


MAPS = {kind: map_of(kind) for kind in ("objectId", "string", "uuid")}
PERSONAL = map_of("objectId", key="email")
PSEUDONYM = f"hmac-sha256:k1:{'0a' * 32}"
OPAQUE = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}", fullmatch=True)


@given(st.binary(min_size=12, max_size=12).map(ObjectId))
def test_an_object_id_comes_back_from_its_text(oid: ObjectId) -> None:
    assert (
        parse_subject_id(to_text(oid), MAPS["objectId"]) == oid == parse_subject_id(str(oid).upper(), MAPS["objectId"])
    )
    assert to_entity_id(oid) == oid


@given(st.uuids())
def test_a_uuid_comes_back_from_its_text(uuid: UUID) -> None:
    parsed = parse_subject_id(str(uuid), MAPS["uuid"])

    assert parsed == Binary.from_uuid(uuid)
    assert to_text(parsed) == to_entity_id(parsed) == str(uuid)


@given(OPAQUE)
def test_a_text_id_is_kept_as_it_is(text: str) -> None:
    parsed = parse_subject_id(text, MAPS["string"])

    assert parsed == to_text(parsed) == to_entity_id(parsed) == text


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("objectId", "ann@x.org"),
        ("objectId", "65f00000000000000000000"),
        ("objectId", "65f00000000000000000000g"),
        ("objectId", "twelve bytes"),
        ("objectId", ""),
        ("uuid", "ann@x.org"),
        ("uuid", "c8edabc3"),
        ("uuid", ""),
        ("string", ""),
        ("string", "ann@x.org"),
        ("string", "Ann Smith"),
        ("string", "ann\n"),
        ("string", "x" * 129),
    ],
)
def test_what_is_no_id_is_refused_and_not_repeated(kind: str, text: str) -> None:
    with pytest.raises(InvalidPayload, match="subject_id: expected ") as caught:
        parse_subject_id(text, MAPS[kind])

    assert not text or text not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def refusal(text: str, data_map: DataMap) -> str | None:
    try:
        parse_subject_id(text, data_map)
    except InvalidPayload as error:
        return str(error)
    return None


def test_where_ids_are_personal_a_pseudonym_names_a_person() -> None:
    assert parse_subject_id(PSEUDONYM, PERSONAL) == to_entity_id(PSEUDONYM) == to_text(PSEUDONYM) == PSEUDONYM


@pytest.mark.parametrize("text", ["ann@x.org", "ann", "65f000000000000000000001", PSEUDONYM.upper(), PSEUDONYM + "0"])
def test_where_ids_are_personal_nothing_else_does(text: str) -> None:
    with pytest.raises(InvalidPayload, match=r"expected a pseudonym, .*compliance datamap pseudonym") as caught:
        parse_subject_id(text, PERSONAL)

    assert text not in str(caught.value)


@given(st.text())
def test_no_text_whatever_is_repeated_or_crashes(text: str) -> None:
    for data_map in (*MAPS.values(), PERSONAL):
        assert refusal(text, data_map) in (None, refusal("", data_map))


def test_an_identity_shows_the_names_of_its_keys_only() -> None:
    identity = Identity({"user_id": ObjectId("65f000000000000000000001"), "email": "ann@x.org"})

    assert repr(identity) == str(identity) == "Identity(keys=['email', 'user_id'])"


@pytest.mark.parametrize(
    ("document", "keys"),
    [
        ({"_id": ObjectId(), "email": "ann@x.org"}, {"user_id", "email"}),
        ({"_id": ObjectId(), "email": ""}, {"user_id"}),
        ({"_id": ObjectId(), "email": None}, {"user_id"}),
        ({"_id": ObjectId()}, {"user_id"}),
    ],
)
def test_an_identity_holds_the_keys_that_the_document_states(document: dict[str, Any], keys: set[str]) -> None:
    assert set(read_identity(document, MAPS["objectId"]).values) == keys


@pytest.mark.parametrize(
    ("path", "value"), [("a", {"b": {"c": 1}}), ("a.b.c", 1), ("a.b.c.d", None), ("x", None), ("a.x.c", None)]
)
def test_a_dotted_path_leads_to_its_value(path: str, value: Any) -> None:
    assert value_at({"a": {"b": {"c": 1}}}, path) == value
