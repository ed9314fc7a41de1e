"""From staging to production: what a record of staging allows to run here, and what runs without one in an emergency.

What is kept is verified at each use: a script is promoted by the record that staging signed, and by nothing that was
written beside it. An emergency counts for the passage that begins with it, and no longer.

Document shape (``migration_promotions``), insert only::

    {_id: SHA-256 of the file in hex, note: bin, by: str, at: date}
    {_id: ObjectId, revision: str, checksum: str, record: _id of the file, key: str, database: str, environment: str,
     applied_at: date, entry: str | null, by: str, at: date}
    {_id: ObjectId, revision: str, checksum: str, fence: that of the run, reason: str, by: str, at: date}
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256

from bson import Binary, ObjectId

from compliance.audit.entry import Entry
from compliance.audit.keys import SigningKey, Verifier
from compliance.audit.log import AuditLog
from compliance.clock import Clock
from compliance.errors import ConfigurationError, IntegrityError, PromotionRefused
from compliance.jobs.run import Outcome, Run
from compliance.mongo import Databases, Document, Session, driver_errors
from compliance.roles import PROMOTIONS
from migrations.again import record_once
from migrations.attestation import Attestation, AttestedScript, open_attestation, sign_attestation
from migrations.journal import started_under
from migrations.ledger import History
from migrations.revision import Revision
from migrations.verification import Problem

CLOCKS_APART = timedelta(hours=1)  # a record may be that much ahead of us
WAIVED = "none"  # in place of keys
MONTH = timedelta(days=30)
Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Which records count here.

    Attributes:
        keys: Whose signature is believed; without any, nothing has to be promoted.
        database: What the application database is called in staging.
        environment: What this one is called: it cannot vouch for itself.
        longest: How old a record may be when it is used.
        is_required: Whether nothing runs here without a key.
        is_waived: Whether a person said that there is no staging.
    """

    keys: tuple[Verifier, ...] = ()
    database: str = ""
    environment: str = ""
    longest: timedelta = MONTH
    is_required: bool = False
    is_waived: bool = False

    def unpromoted(self, databases: Databases, revisions: Sequence[Revision]) -> list[Revision]:
        """Return those of *revisions* that no record allows as they are."""
        if not self.keys or not revisions:
            return []
        allowed = self.find_promoted(databases, [one.name for one in revisions])
        lacking = [one for one in revisions if one.checksum not in allowed.get(one.name, ())]
        under_way = find_emergencies(databases, lacking)
        return [one for one in lacking if one.name not in under_way]

    def find_promoted(self, databases: Databases, names: Collection[str]) -> dict[str, set[str]]:
        """Return the checksums that may run here of the scripts *names*, as records say that one of the keys signed.

        How old a record is was asked when it was promoted.
        """
        allowed: dict[str, set[str]] = {}
        with driver_errors():
            kept = databases.compliance[PROMOTIONS]
            records = kept.distinct("record", {"revision": {"$in": list(names)}})
            notes = [bytes(found["note"]) for found in kept.find({"_id": {"$in": records}, "note": {"$exists": True}})]
        for note in notes:
            for script in self._vouched(note):
                allowed.setdefault(script.name, set()).add(script.checksum)
        return allowed

    def _vouched(self, note: bytes) -> list[AttestedScript]:
        """Return the scripts that *note* vouches for here; none where it is not what a record has to be."""
        try:
            attestation, _ = open_attestation(note, self.keys)
        except IntegrityError:
            return []
        is_of_staging = attestation.environment != self.environment and attestation.database == self.database
        return [script for script in attestation.scripts if is_of_staging and not script.problems]

    def check(self, databases: Databases, revisions: Sequence[Revision], *, is_emergency: bool, report: Report) -> None:
        """Return if *revisions* may run here.

        Raises:
            PromotionRefused: Naming those that may not; nothing ran.
            ConfigurationError: When nobody said whose records count.
        """
        if self.is_waived and revisions:
            report("warning: COMPLIANCE_STAGING_KEYS is none: what runs here need not have run in staging before")
        elif self.is_required and not self.keys and revisions and not is_emergency:
            raise ConfigurationError(
                "production runs what staging vouched for: set COMPLIANCE_STAGING_KEYS to the key that `compliance "
                f"migrate attest` tells there, or to `{WAIVED}` where there is no staging"
            )
        lacking = self.unpromoted(databases, revisions)
        if lacking and not is_emergency:
            known = self.find_promoted(databases, [one.name for one in lacking])
            raise PromotionRefused(
                "; ".join(_sentences(lacking, known))
                + "; or, where it cannot wait, `compliance migrate up --emergency REASON`, which is audited"
            )

    def open(self, note: bytes, *, now: datetime) -> tuple[Attestation, str]:
        """Return what *note* states, and which key signed it.

        Raises:
            ConfigurationError: When no key is set.
            InvalidProof: When none of the keys signed it as it is.
            PromotionRefused: When it is too old, of another database, or of this environment.
        """
        if not self.keys:
            raise ConfigurationError("set COMPLIANCE_STAGING_KEYS to the key that `compliance migrate attest` tells")
        attestation, key = open_attestation(note, self.keys)
        if attestation.environment == self.environment:
            raise PromotionRefused(
                f"this record was made in {self.environment}, where it is to be used: an environment cannot vouch for "
                "itself; use one of staging"
            )
        if attestation.database != self.database:
            raise PromotionRefused(
                f"this record is of the database {attestation.database}, not of {self.database}; use one of that "
                "database, or set COMPLIANCE_STAGING_DATABASE to what it is called in staging"
            )
        if now - attestation.made_at > self.longest:
            raise PromotionRefused(
                f"this record is of {attestation.made_at:%Y-%m-%d %H:%M} UTC and expired after "
                f"{self.longest.days} days; let staging make another one"
            )
        if attestation.made_at - now > CLOCKS_APART:
            raise PromotionRefused(
                f"this record is of {attestation.made_at:%Y-%m-%d %H:%M} UTC, which is not yet; set the clocks"
            )
        return attestation, key


ANYTHING = Gate()


def _sentences(lacking: Sequence[Revision], known: Mapping[str, Collection[str]]) -> list[str]:
    changed = [revision.name for revision in lacking if revision.name in known]
    never = [revision.name for revision in lacking if revision.name not in known]
    sentences = []
    if never:
        sentences.append(
            f"not promoted: {', '.join(never)}; apply them in staging, run `compliance migrate attest --out FILE` "
            "there, and `compliance migrate promote FILE` here"
        )
    if changed:
        sentences.append(
            f"changed since they were promoted: {', '.join(changed)}; deploy the text that staging has applied, or let "
            "staging apply this one and promote again"
        )
    return sentences


def find_emergencies(databases: Databases, revisions: Sequence[Revision]) -> frozenset[str]:
    """Return the names of those of *revisions* that are half applied, as they are, by a run that was an emergency."""
    with driver_errors():
        wanted = {"revision": {"$in": [one.name for one in revisions]}, "fence": {"$exists": True}}
        kept = databases.compliance[PROMOTIONS].find(wanted, {"revision": 1, "checksum": 1, "fence": 1})
        given = {(one["revision"], one["checksum"], one["fence"]) for one in kept}
    if not given:
        return frozenset()
    events = History(databases).events()
    return frozenset(
        one.name
        for one in revisions
        for fence in started_under([event for event in events if event["revision"] == one.name], one.checksum)
        if (one.name, one.checksum, fence) in given
    )


@dataclass(slots=True, kw_only=True)
class Promoted:
    """What became of the scripts of a record, by name.

    Attributes:
        new: May run here from now on.
        known: Were promoted before.
        refused: May not, with the reason.
    """

    new: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def promote(databases: Databases, log: AuditLog, note: bytes, *, gate: Gate, by: str, clock: Clock) -> Promoted:
    """Let the scripts that *note* says are applied and verified in staging run here; a repeat adds nothing.

    Raises:
        ConfigurationError, InvalidProof, PromotionRefused: As ``Gate.open``; nothing is recorded.
    """
    now = clock.now()
    attestation, key = gate.open(note, now=now)
    names = [script.name for script in attestation.scripts]
    allowed, promoted, taken = gate.find_promoted(databases, names), Promoted(), list[AttestedScript]()
    for script in attestation.scripts:
        if script.problems:
            promoted.refused[script.name] = (
                f"is applied in staging but not verified: {script.problems} problems; mend what `compliance migrate "
                "verify` names there, then let staging make another record"
            )
        elif script.checksum in allowed.get(script.name, ()):
            promoted.known.append(script.name)
        else:
            taken.append(script)
            promoted.new.append(script.name)
    digest = sha256(note).hexdigest()
    origin = {"record": digest, "key": key, "database": attestation.database, "environment": attestation.environment}
    documents = [{"_id": ObjectId(), **_describe(script), **origin, "by": by, "at": now} for script in taken]
    entries = [_entry(one, "migration.promoted", {"record": digest, "key": key}) for one in documents]

    def effect(session: Session) -> None:
        for entry in entries:
            log.append(entry, session=session)
        kept = databases.compliance[PROMOTIONS]
        if kept.find_one({"_id": digest}, {"_id": 1}, session=session) is None:
            kept.insert_one({"_id": digest, "note": Binary(note), "by": by, "at": now}, session=session)
        kept.insert_many(documents, session=session)

    if documents:
        record_once(databases, effect, clock=clock)
    return promoted


def _describe(script: AttestedScript) -> Document:
    return {
        "revision": script.name,
        "checksum": script.checksum,
        "applied_at": script.applied_at,
        "entry": script.entry,
    }


def _entry(document: Document, action: str, details: Mapping[str, str]) -> Entry:
    return Entry(
        event=str(document["_id"]),
        entity_type="migration",
        entity_id=document["revision"],
        action=action,
        created_at=document["at"],
        performed_by=document["by"],
        details={"checksum": document["checksum"], **details},
    )


def allow_emergency(revisions: Sequence[Revision], *, reason: str, run: Run, actor: str) -> None:
    """Record that *revisions* run here without a record of staging, and why; so may whoever goes on with them.

    It counts for the passage through each script that begins, or goes on, under the fence of *run*.
    """
    if not revisions:
        return
    now = run.clock.now()
    known = {"fence": run.job.fence, "reason": reason, "by": actor, "at": now}
    documents = [{"_id": ObjectId(), "revision": one.name, "checksum": one.checksum, **known} for one in revisions]
    entries = tuple(_entry(one, "migration.emergency", {"reason": reason}) for one in documents)

    def effect(session: Session) -> Outcome:
        run.ledger.databases.compliance[PROMOTIONS].insert_many(documents, session=session)
        return Outcome(entries=entries)

    run.commit(effect)


def attest(
    databases: Databases, problems: Sequence[Problem], *, key: SigningKey, environment: str, by: str, clock: Clock
) -> tuple[Attestation, bytes]:
    """Return what is applied here, and the file that states it; the audit log tells of it.

    Args:
        databases: Those of staging.
        problems: What ``Runner.verify`` found.
        key: That of the writer of this process.
        environment: As ``COMPLIANCE_ENV`` says.
        by: Who asks.
        clock: Tells when.
    """
    now, log, ran = clock.now(), AuditLog(databases), _ran(History(databases))
    scripts = tuple(
        AttestedScript(
            name=name,
            checksum=checksum,
            applied_at=at,
            entry=_applied_entry(log, name),
            problems=sum(problem.revision == name for problem in problems),
        )
        for name, (checksum, at) in sorted(ran.items())
    )
    attestation = Attestation(
        database=databases.name, environment=environment, made_at=now.replace(microsecond=0), scripts=scripts
    )
    note = sign_attestation(attestation, key)
    entry = Entry(
        event=str(ObjectId()),
        entity_type="database",
        entity_id=databases.name,
        action="migration.attested",
        created_at=now,
        performed_by=by,
        details={"record": sha256(note).hexdigest(), "scripts": len(scripts)},
    )

    def effect(session: Session) -> None:
        log.append(entry, session=session)

    record_once(databases, effect, clock=clock)
    return attestation, note


def _ran(history: History) -> dict[str, tuple[str, datetime]]:
    """Return the checksum of the text that ran, and when, of every script that is applied.

    A text that a person accepted since did not run here.
    """
    ran: dict[str, tuple[str, datetime]] = {}
    for event in history.events():
        if event["event"] == "applied":
            ran[event["revision"]] = (event["checksum"], event["at"])
        elif event["event"] != "repaired":
            ran.pop(event["revision"], None)
    return ran


def _applied_entry(log: AuditLog, name: str) -> str | None:
    applied = [entry["_id"] for entry in log.about("migration", name) if entry["action"] == "migration.applied"]
    return applied[-1] if applied else None
