"""What an erasure in the database does not reach: other systems, and copies that the servers keep."""

from enum import StrEnum

from compliance.datamap.form import Name, Part, Span


class Protocol(StrEnum):
    """How a recipient is told of an erasure.

    Attributes:
        WEBHOOK: A signed JSON event (Standard Webhooks).
        OPENDSR: A request of OpenDSR 2.0.
        MANUAL: By a person; it stays open until somebody says that it was done.
    """

    WEBHOOK = "webhook"
    OPENDSR = "opendsr"
    MANUAL = "manual"


class Recipient(Part):
    """A system outside this database that holds the same people and must be told (GDPR Art. 19).

    Attributes:
        id: Its name; where and with which secret it is told, the settings say under it.
    """

    id: Name
    holds: str
    protocol: Protocol = Protocol.MANUAL


class PreImages(StrEnum):
    """What an erasure does with the pre-images of change streams.

    Attributes:
        EXPIRE: Leaves them until they expire.
        PURGE: Removes those of the person; a change stream that needs one and has not read it yet then fails.
    """

    EXPIRE = "expire"
    PURGE = "purge"


class Surfaces(Part):
    """Copies that no erasure reaches, by how long they last.

    Attributes:
        backups: After which the last backup from before the erasure is gone; None where that is not known.
        logs: After which the logs of the servers are.
        pre_images: What becomes of those of change streams.
    """

    backups: Span | None = None
    logs: Span | None = None
    pre_images: PreImages = PreImages.EXPIRE
