"""Packages that were exported before somebody was erased: a surface that no erasure in the database reaches."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from compliance.audit.log import AuditLog
from compliance.erasure.surface import PACKAGES, Surface, clean, unknown
from compliance.erasure.surfaces import Look, Scope
from compliance.errors import InvalidPayload
from compliance.transfer.manifest import MANIFEST, OWNER, Manifest, read_manifest


def packages_in(directory: Path) -> Look:
    """Return what looks at the packages in *directory*.

    Access packages of the person are known by their requests in the audit log, others by the collections in their
    manifests. Nothing is deleted: a package may be evidence, and who was given a copy knows a person only. Names of
    packages were chosen by people, so only numbers are told.
    """

    def look(scope: Scope) -> Surface:
        own = _requests_about(scope)
        about, beside, unread = 0, 0, 0
        for manifest in _manifests(directory):
            if manifest is None:
                unread += 1
            elif manifest.request_id in own:
                about += 1
            else:
                beside += _may_hold(manifest, scope)
        evidence = (
            f"in the folder of packages {about} are about the person, {beside} hold collections from before the "
            f"erasure, and {unread} cannot be read"
        )
        if not about + beside + unread:
            return clean(PACKAGES, evidence)
        return unknown(
            PACKAGES, evidence, todo="delete what is not needed in COMPLIANCE_TRANSFER_DIR, and copies of it"
        )

    return look


def _requests_about(scope: Scope) -> frozenset[str]:
    log = AuditLog(scope.databases)
    entries = (entry for name in scope.names for entry in log.about("user", name))
    return frozenset(str(entry["request_id"]) for entry in entries if entry["action"].startswith("export."))


def _manifests(directory: Path) -> Iterator[Manifest | None]:
    """Yield the manifest of each package, None for one that is half written or not readable."""
    if not directory.is_dir():
        return
    for path in sorted(directory.iterdir()):
        if not (path / MANIFEST).exists() and not (path / OWNER).exists():
            continue
        try:
            yield read_manifest(path)
        except InvalidPayload:
            yield None


def _may_hold(manifest: Manifest, scope: Scope) -> bool:
    try:
        created_at = datetime.fromisoformat(manifest.created_at)
    except ValueError:
        return True
    is_old = created_at.tzinfo is None or created_at <= scope.done_at
    is_whole = manifest.about == "collection" and manifest.database == scope.databases.name
    return is_old and is_whole and any(file.collection in scope.collections for file in manifest.files)
