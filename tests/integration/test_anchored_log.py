"""A sealed log in MongoDB that is brought to anchors, and what they notice of what an administrator does to it."""

from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from deployment import Deployment
from sealed import SealedLog
from witnesses import WITNESS, Line, StillClock, Witness

from compliance.audit.batch import Batch
from compliance.audit.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from compliance.audit.incident import Incident, Kind
from compliance.audit.merkle import Frontier, leaf_hash
from compliance.audit.seals import Seals
from compliance.audit.trust import yearly
from compliance.mongo import Databases
from compliance.roles import BATCHES, CHECKPOINTS, TILES, Role
from worker.anchors import AnchorLoop, Place
from worker.anchors.kinds.file import FileAnchor
from worker.anchors.kinds.witness import WitnessAnchor
from worker.services import connect


@dataclass
class Anchored:
    """A sealed log with a file and a witness."""

    log: SealedLog
    witness: Witness
    clock: StillClock
    folder: Path
    store: Seals
    incidents: list[Incident]

    def loop(self) -> AnchorLoop:
        """The loop of a watcher that has just started."""
        witness = WitnessAnchor(name="outside", witness=WITNESS.verifier, server=Line(self.witness), clock=self.clock)  # type: ignore[arg-type]
        second = timedelta(seconds=1)
        return AnchorLoop(
            places=[
                Place(name="disk", anchor=FileAnchor("disk", self.folder), every=second),
                Place(name="outside", anchor=witness, every=second),
            ],
            store=self.store,
            policy=self.log.deployment.addresses.trust().policy,
            clock=self.clock,
            alarm=self.incidents.append,
        )

    def grow(self, count: int) -> int:
        """Append *count* entries, seal them, and let every witness know the log."""
        self.log.append(count)
        size = self.log.seal_all()
        self.witness.policies = {self.log.log: self.log.deployment.addresses.trust().policy(self.log.log)}
        return size


@pytest.fixture
def anchored(deployment: Deployment, tmp_path: Path) -> Anchored:
    databases: Databases = connect(deployment.addresses, Role.SEALER, app_name="test-anchors")
    deployment.cleanup.callback(databases.client.close)
    clock = StillClock()
    return Anchored(
        log=SealedLog(deployment, tmp_path / "guard"),
        witness=Witness(clock=clock),
        clock=clock,
        folder=tmp_path,
        store=Seals(databases),
        incidents=[],
    )


def cut_off(anchored: Anchored, size: int) -> None:
    """Take everything above *size* away, as an administrator can."""
    audit = anchored.log.deployment.admin.audit
    audit[CHECKPOINTS].delete_many({"_id.size": {"$gt": size}})
    audit[BATCHES].delete_many({"_id.start": {"$gte": size}})
    audit[TILES].delete_many({})


def test_a_log_that_grows_is_cosigned_and_kept(anchored: Anchored) -> None:
    loop = anchored.loop()
    sizes = []
    for count in (3, 300):
        sizes.append(anchored.grow(count))
        loop.turn()
        anchored.clock.sleep(timedelta(seconds=1))
    name = anchored.log.log
    policy = anchored.log.deployment.addresses.trust().policy(name)

    note = anchored.store.checkpoints.cosigned(name, sizes[-1])
    assert note is not None
    assert open_checkpoint(note, policy=replace(policy, witnesses=(WITNESS.verifier,), quorum=1)).checkpoint.size == (
        anchored.witness.latest[name].size
    )
    assert sum(path.read_bytes().count(name.encode() + b"\n") for path in anchored.folder.glob("*.notes")) == 2
    assert (anchored.incidents, sizes[0] < sizes[1]) == ([], True)


def test_an_end_that_was_cut_off_is_noticed_by_every_anchor_after_a_restart(anchored: Anchored) -> None:
    before = anchored.grow(5)
    after = anchored.grow(40)
    anchored.loop().turn()
    cut_off(anchored, before)

    anchored.loop().turn()

    assert [incident.kind for incident in anchored.incidents] == [Kind.ROLLBACK, Kind.ROLLBACK]
    assert all(
        f"size {after} of {anchored.log.log}, which has {before} entries" in incident.what
        for incident in (anchored.incidents)
    )


def test_a_history_that_was_written_anew_with_the_key_of_the_log_is_noticed(anchored: Anchored) -> None:
    size = anchored.grow(5)
    anchored.loop().turn()
    rewrite(anchored, size + 3)

    anchored.loop().turn()

    assert [incident.kind for incident in anchored.incidents] == [Kind.FORK, Kind.FORK]
    assert anchored.witness.latest[anchored.log.log].size == size


def rewrite(anchored: Anchored, size: int) -> None:
    """Put *size* other entries in the place of the log, signed as the log does."""
    name, deployment = anchored.log.log, anchored.log.deployment
    last = anchored.store.last_batch(name)
    assert last is not None
    leaves = tuple(leaf_hash(b"another %d" % number) for number in range(size))
    frontier = Frontier().extended(leaves)
    ids = tuple(f"{number:032x}" for number in range(size))
    batch = Batch(log=name, ids=ids, leaves=leaves, frontier=frontier, sealed_at=last.sealed_at, token=last.token)
    cut_off(anchored, 0)
    seals = Seals(deployment.admin)
    deployment.admin.transact(lambda session: seals.add_batch(batch, (), session=session))
    checkpoint = Checkpoint(origin=name, size=size, root=frontier.root)
    seals.checkpoints.add(name, size, sign_checkpoint(checkpoint, [yearly(deployment.addresses.log_key(), name)]))
