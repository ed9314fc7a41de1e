"""The made-up database: the same for the same seed, lawful for the validators, and rich enough to prove an erasure."""

import unicodedata
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import bson
import pytest
from bson import ObjectId

from compliance.datamap.model import DataMap, load_data_map
from compliance.settings import DATA_MAP
from tests import oracle
from worker.demo.seed import HEAVY, Seeded, seed_documents

MOMENT = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
SCRIPTS = ("LATIN", "GREEK", "CYRILLIC", "ARABIC", "HEBREW", "CJK", "HIRAGANA", "HANGUL", "DEVANAGARI", "THAI")


@cache
def seeded(seed: int = 7) -> Seeded:
    return seed_documents(seed, moment=MOMENT)


@cache
def data_map() -> DataMap:
    return load_data_map(DATA_MAP)


def encoded(documents: oracle.Documents) -> dict[str, list[bytes]]:
    return {name: [bson.encode(found) for found in stored] for name, stored in documents.items()}


def values(value: Any) -> Any:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from values(inner)
    else:
        yield value


@pytest.mark.parametrize("seed", [0, 7, 12345])
def test_the_same_seed_gives_the_same_documents(seed: int) -> None:
    first, second = seed_documents(seed, moment=MOMENT), seed_documents(seed, moment=MOMENT)

    assert encoded(first.documents) == encoded(second.documents)
    assert first.subjects == second.subjects


def test_another_seed_gives_other_people() -> None:
    assert not set(seeded(1).subjects) & set(seeded(2).subjects)


def test_ids_are_unique_in_each_collection() -> None:
    for stored in seeded().documents.values():
        assert len({found["_id"] for found in stored}) == len(stored)


@pytest.mark.parametrize("seed", [0, 7, 12345])
def test_every_address_is_unique_whatever_its_case_and_form(seed: int) -> None:
    addresses = [oracle.fold(user["email"]) for user in seeded(seed).documents["users"]]

    assert len(set(addresses)) == len(addresses) == 300


def test_some_addresses_are_not_ascii_and_some_are_in_mixed_case() -> None:
    addresses = [user["email"] for user in seeded().documents["users"]]

    assert any(not address.rpartition("@")[2].isascii() for address in addresses)
    assert any(address.isascii() and address != address.lower() for address in addresses)


def test_every_domain_is_one_that_nobody_can_own() -> None:
    domains = {user["email"].rpartition("@")[2].lower() for user in seeded().documents["users"]}

    assert all(domain in {"example.org", "example.net"} or domain.endswith(".example") for domain in domains)


@pytest.mark.parametrize("script", SCRIPTS)
def test_names_are_in_many_scripts(script: str) -> None:
    names = "".join(user["preferences"]["profile"]["family_name"] for user in seeded().documents["users"])
    names += "".join(user["preferences"]["profile"]["given_name"] for user in seeded().documents["users"])

    assert any(unicodedata.name(letter, "").startswith(script) for letter in names)


def test_heavy_people_have_data_in_every_collection_of_the_map_and_its_history() -> None:
    documents = seeded().documents
    everywhere = set(data_map().writable())

    for subject in seeded().subjects:
        known = {subject, *oracle.artists_of(documents, subject)}
        present = {
            name for name, stored in documents.items() for found in stored if known & {*ids(found), found["_id"]}
        }
        assert present == everywhere
    assert len(seeded().subjects) == HEAVY


def ids(document: dict[str, Any]) -> set[ObjectId]:
    return {value for value in values(document) if isinstance(value, ObjectId)}


def test_heavy_people_granted_and_withdrew_and_share_with_others() -> None:
    documents = seeded().documents
    for subject in seeded().subjects:
        consents = [found for found in documents["consent"] if found["user_id"] == subject]
        shared = [found for found in documents["playlists"] if found["collaborative"] and found["owner_id"] == subject]
        joined = [
            found
            for found in documents["playlists"]
            if found["owner_id"] != subject
            and any(member["user_id"] == subject for member in found.get("collaborators", ()))
        ]

        assert {found["granted"] for found in consents} == {True, False}
        assert len({found["type"] for found in consents}) == len(consents) == 5
        assert shared
        assert joined


def test_every_date_is_aware_in_milliseconds_and_not_after_the_moment() -> None:
    dates = [value for value in values(seeded().documents) if isinstance(value, datetime)]

    assert all(date.tzinfo is not None and date.microsecond % 1000 == 0 for date in dates)
    assert max(dates) <= MOMENT
    assert min(dates) > MOMENT - timedelta(days=1000)


def test_every_integer_fits_into_32_bits() -> None:
    numbers = [value for value in values(seeded().documents) if type(value) is int]

    assert max(numbers) < 2**31


def test_old_versions_are_copies_with_a_reference_some_raw_and_some_known_by_their_address_only() -> None:
    documents, subject = seeded().documents, seeded().subjects[0]
    address = oracle.email_of(documents, subject)
    old = documents["users_history"]

    assert any(found.get("document_id") == subject for found in old)
    assert any(found["_id"] == subject for found in old)
    assert any(
        found["email"] != address and oracle.fold(found["email"]) == oracle.fold(address) and subject not in ids(found)
        for found in old
    )


def test_fewer_people_than_the_story_needs_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 20 people"):
        seed_documents(7, people=19, moment=MOMENT)


def test_the_oracle_leaves_nothing_of_the_person() -> None:
    documents = seeded().documents
    for subject in seeded().subjects:
        after = oracle.expected_after_erasure(documents, subject, data_map())
        address = oracle.email_of(documents, subject)
        texts = "\n".join(value for value in values(after) if isinstance(value, str))

        assert not [found for stored in after.values() for found in stored if oracle.mentions(found, subject, address)]
        assert not {value for value in oracle.personal_values(documents, subject) if value in texts}


def test_the_oracle_leaves_the_documents_of_others_as_they_are() -> None:
    documents = seeded().documents
    for subject in seeded().subjects:
        address = oracle.email_of(documents, subject)
        known = oracle.artists_of(documents, subject)
        after = encoded(oracle.expected_after_erasure(documents, subject, data_map()))
        others = {
            name: [
                bson.encode(found)
                for found in stored
                if not oracle.mentions(found, subject, address) and not known & ids(found)
            ]
            for name, stored in documents.items()
        }

        for name, stored in others.items():
            assert set(stored) <= set(after[name])


def test_the_oracle_does_not_change_what_it_was_given() -> None:
    before = encoded(seeded().documents)

    oracle.expected_after_erasure(seeded().documents, seeded().subjects[0], data_map())

    assert encoded(seeded().documents) == before


def test_personal_values_hold_the_name_the_address_and_the_free_text() -> None:
    documents, subject = seeded().documents, seeded().subjects[0]
    user = next(found for found in documents["users"] if found["_id"] == subject)
    artist = next(found for found in documents["artists"] if found["user_id"] == subject)

    found = oracle.personal_values(documents, subject)

    assert {user["email"], user["email"].upper(), user["preferences"]["address"]["street"]} <= found
    assert {artist["display_name"], artist["bio"], user["preferences"]["devices"][0]["user_agent"]} <= found
    assert "MARKETING" not in found
