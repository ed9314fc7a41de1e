"""Where a watch of the alarm stands, and how it keeps what it found.

The place is saved behind what was found up to it, so a crash reads events again and loses none; an event that is read
twice is one incident. It is saved in the database, and in a file that nobody reaches with the rights of the database:
whoever moves on the one while no watcher runs does not move the other, and the older one counts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from compliance.audit.incident import Incident
from compliance.statefile import StateFile
from worker.alarm import Alarm
from worker.services import Services
from worker.telemetry import metrics
from worker.tokens import find_token, save_token

log = structlog.get_logger(__name__)

Place = Mapping[str, Any]


def places_file(path: Path | None = None) -> StateFile:
    """Return the file at *path* that remembers places; without one only the database does."""
    return StateFile(path, "how far the watcher looked at the audit database")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookout:
    """What a watch shares with every other one.

    Attributes:
        stream: What is followed, as metrics call it.
        place_id: Under which the place is saved.
        file: The file outside the database.
        on_read: Told whenever the stream was read, also when nothing was there.
        on_saved: Told when the place is saved.
    """

    services: Services
    stream: str
    place_id: str
    should_stop: Callable[[], bool]
    file: StateFile = field(default_factory=places_file)
    on_read: Callable[[], None] = lambda: None
    on_saved: Callable[[], None] = lambda: None
    alarm: Alarm = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "alarm", Alarm(self.services.databases))

    def places(self) -> list[Place]:
        """Return the places that are saved, each once; none at the beginning.

        Raises:
            ConfigurationError: When the file cannot be read.
        """
        places: list[Place] = []
        for found in (find_token(self.services.databases, self.place_id), self.file.read().get(self._name)):
            if isinstance(found, Mapping) and found not in places:
                places.append(found)
        return places

    def keep(self, incidents: Sequence[Incident], place: Place | None, *, events: int) -> None:
        """Tell of *incidents* and keep them, then save the *place* up to which *events* were looked at."""
        if incidents:
            self.alarm.ring(incidents)
        self.save(place)
        metrics.WATCH_EVENTS.inc(self.stream, by=events)

    def save(self, place: Place | None) -> None:
        """Save where the watch stands; None lets it begin again.

        Raises:
            ConfigurationError: When the file cannot be written.
        """
        save_token(self.services.databases, self.place_id, place, now=self.services.clock.now())
        self.file.change(lambda kept: {**kept, self._name: place})
        self.on_saved()

    def go_on_from(self, place: Place) -> None:
        """Go on from *place*, since the oplog does not have the other one any more.

        That is no incident by itself: it is so where this host had no watcher for long, and another one had.
        """
        log.error("watch.place_outdated", stream=self.stream)
        self.save(place)

    @property
    def _name(self) -> str:
        return f"{self.services.databases.name} {self.place_id}"
