"""A data map that cannot be carried out is refused when it is read."""

import copy
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from bson import ObjectId

from compliance.datamap.model import DataMap, load_data_map
from compliance.datamap.rule import Update
from compliance.errors import ConfigurationError
from compliance.settings import DATA_MAP

UUID = "c8edabc3-f738-4ca3-b68d-ab92a91478a3"
SECRET = "zzSecret77"
Change = Callable[[dict[str, Any]], object]


def reference() -> dict[str, Any]:
    """The rules of the reference map, each collection a list of them."""
    content = yaml.safe_load(DATA_MAP.read_text())
    declared = content["collections"].items()
    return {**content, "collections": {name: found["rules"] for name, found in declared if "rules" in found}}


def rule(changed: dict[str, Any], collection: str = "tracks", number: int = 0) -> dict[str, Any]:
    return changed["collections"][collection][number]


def write(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "map.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def test_the_reference_map_loads() -> None:
    data_map = load_data_map(DATA_MAP)

    assert data_map.root_key.path == "_id"
    assert "users" in data_map.writable()
    action = data_map.collections["tracks"].rules[0].on_erase
    assert isinstance(action, Update)
    assert action.set == {"artist_id": ObjectId("0" * 24)}


def nest(*path: str | int) -> Callable[[Any], Change]:
    def to(value: Any) -> Change:
        def change(changed: Any) -> None:
            for part in path[:-1]:
                changed = changed[part]
            changed[path[-1]] = value

        return change

    return to


WRONG: list[tuple[Change, str]] = [
    (nest(SECRET)(1), "Extra inputs"),
    (nest("subject", "extra")(SECRET), "subject.extra"),
    (nest("collections", "tracks", 0, "extra")(SECRET), "collections.tracks.rules.0.extra"),
    (nest("collections", "tracks", 0, "on_erase", "extra")(SECRET), "collections.tracks.rules.0.on_erase.update.extra"),
    (nest("apiVersion")(SECRET), "apiVersion"),
    (nest("subject", "key")(SECRET), "subject: .*one of subject.keys"),
    (nest("subject", "keys", "user_id", "personal")(True), "subject: .*a personal key must be of the type string"),
    (nest("subject", "keys", "user_id")({"path": "a[].b", "type": "string", "personal": True}), "subject: .*without"),
    (nest("subject", "keys", "email", "type")(SECRET), "subject.keys.email.type"),
    (nest("collections", "artists", 0, "locate", "key")("nobody"), "artists: locate.key nobody"),
    (nest("collections", "tracks", 0, "locate", "of")("nothing"), "tracks: locate.of nothing"),
    (nest("collections", "tracks", 0, "locate", "key")("user_id"), "collections.tracks.rules.0.locate: .*either key"),
    (nest("collections", "tracks", 0, "locate")({"path": "a"}), "collections.tracks.rules.0.locate: .*either key"),
    (nest("collections", "tracks", 0, "locate", "path")(f"a b {SECRET}"), "collections.tracks.rules.0.locate.path"),
    (nest("collections", "tracks", 0, "on_erase", "action")(SECRET), "collections.tracks.rules.0.on_erase"),
    (nest("collections", "tracks", 0, "on_erase", "set")({"title": SECRET}), "tracks: on_erase must take artist_id"),
    (nest("collections", "tracks", 0, "on_erase", "set")({"artist_id": {"$oid": SECRET}}), "set.artist_id"),
    (nest("collections", "tracks", 0, "on_erase", "set")({"artist_id": {"$date": SECRET}}), "set.artist_id"),
    (nest("collections", "tracks", 0, "on_erase", "set")({"artist_id": datetime(2026, 1, 1, tzinfo=UTC)}), "artist_id"),
    (nest("collections", "tracks", 0, "on_erase", "set")({"artist_id[].x": 1}), "set.artist_id"),
    (nest("collections", "playlists", 2, "on_erase", "array")("members"), "playlists: on_erase must take collab"),
    (nest("collections", "playlists", 2, "on_erase", "array")(f"{SECRET}!"), "playlists.rules.2.on_erase.pull.array"),
    (nest("collections", "playlists", 2, "locate", "key")("email"), "playlists: a personal key takes a path without"),
    (nest("collections", "artists", 0, "locate")({"path": "mails[]", "key": "email"}), "artists: a personal key"),
    (nest("history", "suffix")(SECRET), "history.suffix"),
    (nest("imports")([f"{SECRET}!"]), "imports.0"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "place"), WRONG, ids=[f"{number}: {place}" for number, (_, place) in enumerate(WRONG)]
)
def test_a_wrong_map_is_refused_with_the_place_and_without_the_value(
    change: Change, place: str, tmp_path: Path
) -> None:
    content = reference()
    change(content)

    with pytest.raises(ConfigurationError, match=rf"the data map map\.yaml is wrong: .*{place}") as caught:
        load_data_map(write(tmp_path, content))

    assert SECRET not in str(caught.value).replace(f"{SECRET}: Extra inputs", "")


def test_every_fault_is_named_at_once(tmp_path: Path) -> None:
    content = reference()
    content["subject"]["extra"] = rule(content)["extra"] = 1

    with pytest.raises(ConfigurationError, match=r"subject\.extra: .*; collections\.tracks\.rules\.0\.extra: "):
        load_data_map(write(tmp_path, content))


@pytest.mark.parametrize("content", [b"a: [", b"\xff\xfe\x00", b"a: !!python/object:os.system {}", b"\x00"])
def test_what_is_no_yaml_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "map.yaml"
    path.write_bytes(content)

    with pytest.raises(ConfigurationError, match=r"the data map map\.yaml is not valid YAML"):
        load_data_map(path)


@pytest.mark.parametrize("content", [None, [], "text", 1])
def test_yaml_that_is_no_map_is_refused(content: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"map\.yaml is wrong: map: "):
        load_data_map(write(tmp_path, content))


def test_a_missing_file_is_named_by_its_variable(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="COMPLIANCE_DATA_MAP: cannot be read"):
        load_data_map(tmp_path / "nowhere.yaml")


def test_the_digest_is_stable() -> None:
    content = yaml.safe_load(DATA_MAP.read_text())

    assert load_data_map(DATA_MAP).digest == DataMap.model_validate(content).digest


CHANGES: list[Change] = [
    nest("subject", "keys", "email", "personal")(False),
    nest("collections", "tracks", 0, "on_erase", "set")({"artist_id": {"$oid": "0" * 23 + "1"}}),
    nest("collections", "tracks", 0, "on_erase", "set")({"artist_id": "0" * 24}),
    nest("collections", "tracks", 0, "on_erase", "set")({"artist_id": {"$uuid": UUID}}),
    nest("collections", "tracks", 0, "on_erase", "set")({"artist_id": {"$numberLong": "5"}}),
    nest("collections", "tracks", 0, "on_erase", "set")({"artist_id": 5}),
    nest("collections", "playlists", 0, "where")({"collaborative": {"$ne": 1}}),
    nest("history")(None),
    nest("consent_types")(["TERMS"]),
]  # fmt: skip


def test_any_change_changes_the_digest() -> None:
    digests = [DataMap.model_validate(reference()).digest]
    for change in CHANGES:
        content = reference()
        change(content)
        digests.append(DataMap.model_validate(content).digest)

    assert len(set(digests)) == len(digests)


def test_values_in_lists_are_extended_json_too() -> None:
    content = reference()
    rule(content)["where"] = {"$or": [{"album_id": {"$oid": "1" * 24}}]}

    assert DataMap.model_validate(content).collections["tracks"].rules[0].where == {
        "$or": [{"album_id": ObjectId("1" * 24)}]
    }


@pytest.mark.parametrize(
    ("path", "on_erase"),
    [
        ("members[].user_id", {"action": "update", "unset": ["members"]}),
        ("groups.members[].user_id", {"action": "update", "set": {"groups.members": []}}),
        ("a.b", {"action": "update", "unset": ["a"]}),
        ("tags[]", {"action": "pull", "array": "tags"}),
        ("groups[].members[].user_id", {"action": "pull", "array": "groups[].members"}),
    ],
)
def test_actions_that_take_the_locator_away_are_allowed(path: str, on_erase: dict[str, Any]) -> None:
    content = reference()
    content["collections"]["tracks"] = [{"locate": {"path": path, "key": "user_id"}, "on_erase": on_erase}]

    assert DataMap.model_validate(content).collections["tracks"].rules[0].locate.path == path


def test_an_erasure_may_write_to_histories_too() -> None:
    writable = load_data_map(DATA_MAP).writable()

    assert {"users", "users_history", "tracks", "tracks_history"} <= set(writable)
    assert len(set(writable)) == len(writable)


def test_without_histories_only_the_collections_are_writable() -> None:
    content = reference()
    del content["history"]

    assert set(DataMap.model_validate(content).writable()) == {"users", *content["collections"]}


def test_a_map_is_a_value() -> None:
    assert DataMap.model_validate(reference()) == DataMap.model_validate(copy.deepcopy(reference()))
