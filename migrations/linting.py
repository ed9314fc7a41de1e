"""Read what the rules look at: the folder, what git says of it, and the live database."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import which
from typing import Any

from compliance.errors import ConfigurationError, InvalidPayload
from compliance.mongo import Db, driver_errors
from migrations.discovery import IGNORED
from migrations.governance import RULES, Catalogue, Script, parse_script
from migrations.governance.catalogue import Collection, Index, Sighting
from migrations.preview import Preview
from migrations.sketch import PlannedStep

GIT_LIMIT_SECONDS = 30


def read_folder(folder: Path) -> tuple[Script, ...]:
    """Return every file of *folder* that could be a script, also those that cannot be read.

    Raises:
        ConfigurationError: When there is no such folder.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"the migrations folder {folder.name} does not exist; set COMPLIANCE_MIGRATIONS")
    files = sorted(path for path in folder.glob("*.py") if path.name not in IGNORED)
    return tuple(parse_script(path.name, path.read_bytes()) for path in files)


def parse_off(text: str) -> frozenset[str]:
    """Return the codes in *text*, the rules that do not count here.

    Raises:
        ConfigurationError: Naming those that are no rule.
    """
    codes = frozenset(text.replace(",", " ").split())
    unknown = sorted(codes - RULES.keys())
    if unknown:
        raise ConfigurationError(
            f"COMPLIANCE_LINT_OFF: {', '.join(unknown)}: no rules of migrations; "
            "`compliance migrate lint --rules` lists them"
        )
    return codes


def changed_since(folder: Path, revision: str) -> frozenset[str]:
    """Return the names of the files of *folder* that differ from *revision* of its git repository, or are new.

    Raises:
        ConfigurationError: When there is no git, or the folder is not in a repository.
        InvalidPayload: When the repository has no such revision.
    """
    git = which("git")
    if git is None:
        raise ConfigurationError("--since needs git on the PATH; without it, look at all scripts")
    if _git(git, folder, "rev-parse", "--is-inside-work-tree").stdout.strip() != "true":
        raise ConfigurationError(f"--since: the folder {folder.name} is in no git repository; look at all scripts")
    if _git(git, folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}").returncode:
        raise InvalidPayload("--since: git knows no such revision here; fetch it, or name another one")
    listings = (
        ("diff", "--name-only", "--relative", "--diff-filter=d", "-z", "--end-of-options", revision, "--", "."),
        ("ls-files", "--others", "--exclude-standard", "-z", "--", "."),
    )
    listed = (_git(git, folder, *arguments).stdout.split("\0") for arguments in listings)
    return frozenset(name for names in listed for name in names if name)


def _git(git: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - fixed verbs; what a person gave stands behind --end-of-options
        [git, "-C", str(folder), *arguments], capture_output=True, text=True, check=False, timeout=GIT_LIMIT_SECONDS
    )


def read_catalogue(database: Db, *, steps: Mapping[str, Sequence[Sighting]] | None = None) -> Catalogue:
    """Return what *database* holds, with the *steps* that a dry run saw; it reads metadata, no documents."""
    with driver_errors():
        listed = [info for info in database.list_collections() if not info["name"].startswith("system.")]
        return Catalogue({info["name"]: _collection(database, info) for info in listed}, steps or {})


def sightings(preview: Preview) -> Mapping[str, Sequence[Sighting]]:
    """Return what a dry run saw of each script, by file."""
    size = preview.oplog.size_bytes if preview.oplog else 0
    return {
        f"{script.revision.name}.py": tuple(_sighting(step, size) for step in script.steps)
        for script in preview.scripts
    }


def _sighting(step: PlannedStep, oplog_bytes: int) -> Sighting:
    cost = step.estimate
    collection = cost.collection if cost else step.commands[0].collection if step.commands else ""
    written = (cost.oplog_bytes or 0) if cost else 0
    return Sighting(
        line=step.line or 1,
        collection=collection,
        collection_documents=cost.collection_documents if cost else 0,
        builds=any(command.name == "createIndexes" for command in step.commands),
        violators=step.violators,
        expiring=step.expiring,
        oplog_share=written / oplog_bytes if oplog_bytes else 0.0,
    )


def _collection(database: Db, info: Mapping[str, Any]) -> Collection:
    kind = "capped" if info.get("options", {}).get("capped") else str(info["type"])
    if kind not in ("collection", "capped"):
        return Collection(kind=kind)
    documents = database[info["name"]]
    uses = {found["name"]: int(found["accesses"]["ops"]) for found in documents.aggregate([{"$indexStats": {}}])}
    indexes = {
        found["name"]: Index(
            keys=tuple(found["key"].items()),
            is_unique=bool(found.get("unique")),
            is_hidden=bool(found.get("hidden")),
            uses=uses.get(found["name"], 0),
        )
        for found in documents.list_indexes()
    }
    return Collection(kind=kind, documents=documents.estimated_document_count(), indexes=indexes)
