"""Whoever moves the places of the alarm in the database while no watcher runs hides nothing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId, Timestamp, json_util
from deployment import Deployment
from structlog.testing import capture_logs
from tampering import MARK, an_entry, following, kinds, lookout, wait_for_mark
from waiting import wait_until

from compliance.errors import ConfigurationError
from compliance.roles import AUDIT_LOG, INCIDENTS, Role
from worker.oplog import PLACE_ID, OplogWatch
from worker.tamper import TamperWatch

REST = "0000001B2B022C0100296E5A1004E0B2FEDBD4BC40BC91C223FCDD02454F46645F696400646B044EF586589A8ADA7DA21C0004"
LONG_AGO, TO_COME = {"_data": f"8200000001{REST}"}, {"_data": f"82FFFFFFFF{REST}"}
NO_TOKENS = ("00", "82", "82FF", "zz", "", "82000000010000000129", "8200", 7, None)


def delete(deployment: Deployment) -> None:
    deployment.admin.audit[AUDIT_LOG].delete_one({})


def delete_by_hand(deployment: Deployment) -> None:
    entry = deployment.admin.audit[AUDIT_LOG].find_one({})
    assert entry is not None
    apply(deployment, {"op": "d", "ns": f"{deployment.name}_audit.{AUDIT_LOG}", "o": {"_id": entry["_id"]}})


def apply(deployment: Deployment, operation: Mapping[str, Any]) -> None:
    deployment.admin.client.admin.command("applyOps", [operation])


def end_of_stream(deployment: Deployment) -> Mapping[str, Any]:
    with deployment.admin.audit.watch() as stream:
        assert stream.resume_token is not None
        return stream.resume_token


def end_of_oplog(deployment: Deployment) -> Mapping[str, Any]:
    newest = deployment.admin.client["local"]["oplog.rs"].find_one(sort=[("$natural", -1)])
    assert newest is not None
    return {"ts": newest["ts"]}


@dataclass(frozen=True)
class Case:
    """One of the two watches, an act that it sees, and places of it."""

    watch: type[TamperWatch | OplogWatch]
    act: Callable[[Deployment], None]
    kind: str
    end: Callable[[Deployment], Mapping[str, Any]]
    long_ago: Mapping[str, Any]

    def place_id(self, deployment: Deployment) -> str:
        return deployment.admin.audit.name if self.watch is TamperWatch else PLACE_ID


CASES = {
    "audit": Case(TamperWatch, delete, "DELETED", end_of_stream, LONG_AGO),
    "oplog": Case(OplogWatch, delete_by_hand, "APPLY-OPS", end_of_oplog, {"ts": Timestamp(1, 1)}),
}


@dataclass
class Scene:
    """A database with entries, and a watch of it on one host."""

    deployment: Deployment
    case: Case
    file: Path

    def follow(self, *, file: Path | None = None) -> None:
        """Follow until everything up to now was looked at, and one act more."""
        what = f"{MARK}{ObjectId()}"
        with following(self.deployment, self.case.watch, file=file or self.file):
            self.case.act(self.deployment)
            self.deployment.admin.audit.create_collection(what)
            apply(self.deployment, {"op": "i", "ns": f"{self.deployment.name}_audit.{what}", "o": {"_id": 1}})
            wait_for_mark(self.deployment, what)

    def settle(self) -> None:
        """Wait until a place is saved."""
        with following(self.deployment, self.case.watch, file=self.file):
            wait_until(lambda: self.place is not None, timeout=20, what="the place is saved")

    def act(self) -> None:
        self.case.act(self.deployment)

    @property
    def _tokens(self) -> Any:
        return self.deployment.admin.compliance["watch_tokens"]

    @property
    def place(self) -> Any:
        """Where the database says that the watch stands."""
        found = self._tokens.find_one({"_id": self.case.place_id(self.deployment)})
        return found["token"] if found else None

    @place.setter
    def place(self, place: Mapping[str, Any] | None) -> None:
        query = {"_id": self.case.place_id(self.deployment)}
        if place is None:
            self._tokens.delete_one(query)
        else:
            self._tokens.update_one(query, {"$set": {"token": place}}, upsert=True)

    @property
    def kept(self) -> Any:
        """Where the file says that it stands."""
        return json_util.loads(self.file.read_text()).get(self._key)

    @kept.setter
    def kept(self, place: Mapping[str, Any]) -> None:
        self.file.write_text(json_util.dumps({self._key: place}))

    @property
    def _key(self) -> str:
        return f"{self.deployment.name} {self.case.place_id(self.deployment)}"


@pytest.fixture(params=CASES)
def scene(request: pytest.FixtureRequest, empty: Deployment, tmp_path: Path) -> Scene:
    """Eight entries, and a watch that has begun."""
    for number in range(8):
        an_entry(empty, f"e-{number}")
    found = Scene(empty, CASES[request.param], tmp_path / "guard" / "places.json")
    found.settle()
    return found


def ours(scene: Scene) -> int:
    return kinds(scene.deployment).count(scene.case.kind)


def test_the_file_and_the_database_hold_the_same_place(scene: Scene) -> None:
    scene.follow()

    assert scene.kept == scene.place is not None
    assert scene.file.stat().st_size < 1000


@pytest.mark.parametrize("forged", ["the end", "nothing", "the future"])
def test_a_place_that_was_moved_on_while_nobody_watched_hides_nothing(scene: Scene, forged: str) -> None:
    scene.act()
    future = TO_COME if scene.case.watch is TamperWatch else None
    scene.place = {"the end": scene.case.end(scene.deployment), "nothing": None, "the future": future}[forged]

    scene.follow()

    assert ours(scene) == 2


def test_a_host_that_never_watched_believes_the_database(scene: Scene, tmp_path: Path) -> None:
    scene.act()
    scene.place = scene.case.end(scene.deployment)

    scene.follow(file=tmp_path / "another host.json")

    assert ours(scene) == 1


def test_a_place_that_was_moved_back_is_read_twice_and_is_one_incident(scene: Scene) -> None:
    begin = scene.place
    scene.follow()
    scene.place = begin

    scene.follow()

    assert ours(scene) == 2
    assert kinds(scene.deployment) == [scene.case.kind] * 2


def test_a_file_that_is_older_than_the_oplog_is_no_incident(scene: Scene) -> None:
    scene.kept = scene.case.long_ago
    with capture_logs() as lines:
        scene.follow()
    outdated = [(line["log_level"], line["stream"]) for line in lines if line["event"] == "watch.place_outdated"]

    assert kinds(scene.deployment) == [scene.case.kind]
    assert len(outdated) == 1
    assert outdated[0][0] == "error"
    assert scene.kept == scene.place


def test_a_place_in_the_database_that_is_older_than_the_oplog_is_none_either(scene: Scene) -> None:
    scene.act()
    scene.place = scene.case.long_ago

    scene.follow()

    assert kinds(scene.deployment) == [scene.case.kind] * 2


@pytest.mark.parametrize("data", [LONG_AGO["_data"], *NO_TOKENS], ids=str)
def test_a_token_that_no_server_wrote_is_nothing_where_the_file_has_one(
    empty: Deployment, tmp_path: Path, data: object
) -> None:
    for number in range(3):
        an_entry(empty, f"e-{number}")
    scene = Scene(empty, CASES["audit"], tmp_path / "places.json")
    scene.settle()
    scene.act()
    scene.place = {"_data": data}

    scene.follow()

    assert kinds(empty) == ["DELETED", "DELETED"]


def test_where_neither_is_in_the_oplog_nobody_can_say_what_happened(scene: Scene) -> None:
    scene.place = scene.kept = scene.case.long_ago

    scene.follow()
    scene.follow()

    assert kinds(scene.deployment) == sorted([scene.case.kind] * 2 + ["WATCH-LOST"])


@pytest.mark.parametrize("data", [TO_COME["_data"], *NO_TOKENS], ids=str)
def test_a_token_that_no_server_wrote_counts_as_lost(empty: Deployment, data: object) -> None:
    an_entry(empty)
    empty.admin.compliance["watch_tokens"].insert_one({"_id": empty.admin.audit.name, "token": {"_data": data}})
    with following(empty, TamperWatch):
        wait_until(lambda: kinds(empty) == ["WATCH-LOST"], timeout=20, what="the gap is an incident")
        wait_until(lambda: begins_again(empty), timeout=20, what="the stream begins again")
        delete(empty)
        wait_until(lambda: kinds(empty) == ["DELETED", "WATCH-LOST"], timeout=20, what="it is followed")


def begins_again(deployment: Deployment) -> bool:
    found = deployment.admin.compliance["watch_tokens"].find_one({"_id": deployment.admin.audit.name})
    token = found and found["token"]
    return bool(token) and "0" * 8 < str(token["_data"])[2:10] < "F" * 8


def test_a_server_that_was_set_back_with_its_places_is_known_by_the_file(empty: Deployment, tmp_path: Path) -> None:
    an_entry(empty)
    scene = Scene(empty, CASES["oplog"], tmp_path / "places.json")
    scene.settle()
    scene.kept = {"ts": Timestamp(2**32 - 1, 1)}

    scene.follow()

    assert kinds(empty) == ["APPLY-OPS", "ROLLBACK"]


def test_a_file_that_cannot_be_read_is_an_error_and_stays(scene: Scene) -> None:
    scene.file.write_text("{")
    services = scene.deployment.services(Role.SEALER)
    with pytest.raises(ConfigurationError, match="how far the watcher looked at the audit database, so restore it"):
        scene.case.watch(lookout(services, scene.case.watch, should_stop=lambda: True, file=scene.file)).follow()

    assert scene.file.read_text() == "{"
    assert scene.deployment.admin.audit[INCIDENTS].count_documents({}) == 0
