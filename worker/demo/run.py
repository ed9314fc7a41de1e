"""``compliance demo``: start a system of its own, fill it, tell the story, and leave nothing running."""

from collections.abc import Callable, Mapping
from datetime import datetime
from threading import Event

from compliance.clock import Clock, SystemClock
from compliance.mongo import Databases, driver_errors, open_client
from compliance.settings import Settings
from worker.addresses import Addresses
from worker.demo import erasure, others
from worker.demo.seed import Seeded, insert, seed_documents
from worker.demo.show import Show
from worker.demo.stage import Stage, clear_home, open_stage, own_environ, own_settings
from worker.embedded import resolve_home
from worker.embedded.ports import pick_port
from worker.tokens import TOKENS
from worker.up import System, running_system

FLOWER_PORT = 5555


def run_demo(
    settings: Settings,
    *,
    environ: Mapping[str, str],
    say: Callable[[str], None],
    seed: int,
    keep: bool,
    stop: Event,
) -> None:
    """Show the whole product in less than a minute.

    MUST be called in the main thread.

    Args:
        settings: Of the user; their servers are not touched.
        environ: The environment of the user.
        say: Shows a line.
        seed: Of the made-up people.
        keep: Leave everything running until *stop*.
        stop: Set when the user wants to end it.

    Raises:
        ConfigurationError: When the folder of the demonstration holds something else.
        LockHeld: When another demonstration runs there.
        StoreUnavailable: When something that the story waits for does not happen.
    """
    show, clock = Show(say), SystemClock()
    began = clock.now()
    home = resolve_home(settings.home) / "demo"
    clear_home(home)
    show.text("compliance-worker: a demonstration on servers and made-up people of its own.")
    if settings.mongodb_uri is not None or settings.redis_url is not None:
        show.text("Your own servers (MONGODB_URI, REDIS_URL) are left alone: nothing here reaches them.")
    own = own_settings(settings, home)
    port = pick_port(FLOWER_PORT)
    with running_system(Addresses(own), environ=own_environ(environ), flower_port=port, say=show.text) as system:
        seeded = _fill(system, show, seed=seed, moment=clock.now())
        with open_stage(system, show=show, clock=clock, stop=stop) as stage:
            _tell(stage, seeded)
        _close(system, show, clock, began=began, keep=keep)
        while keep and not stop.wait(1):
            system.group.check()
        show.text("Stopping; each process finishes its present batch.")
    show.text("Everything is stopped.")


def _fill(system: System, show: Show, *, seed: int, moment: datetime) -> Seeded:
    seeded = seed_documents(seed, moment=moment)
    # As the application: what a user of ours wrote without an audit entry would be an incident.
    with open_client(system.addresses.admin_uri(), app_name="compliance-demo") as client:
        total = insert(seeded, Databases(client, system.addresses.settings.mongodb_database))
    people = len(seeded.documents["users"])
    show.text(f"made up {people} people with {total:,} documents in {len(seeded.documents)} collections (seed {seed})")
    return seeded


def _tell(stage: Stage, seeded: Seeded) -> None:
    """Tell the story; it begins when the watcher follows the change stream."""

    def is_watching() -> bool | None:
        with driver_errors():
            return stage.auditor.compliance[TOKENS].find_one({"_id": stage.auditor.name}) is not None or None

    stage.wait(is_watching, what="the watcher")
    person, second, third = seeded.subjects[:3]
    erasure.meet(stage, person)
    erasure.plan(stage, person)
    erasure.erase(stage, person)
    erasure.follow_up(stage, person)
    erasure.trail(stage)
    erasure.kept(stage)
    others.withdraw(stage, second)
    others.give_access(stage, third)
    others.answer_queries(stage, person)
    others.prove(stage)


def _close(system: System, show: Show, clock: Clock, *, began: datetime, keep: bool) -> None:
    show.chapter(
        "What next",
        f"That was the whole product in {(clock.now() - began).total_seconds():.0f} s. Every task was in Flower, too:",
    )
    show.table([("Flower", system.flower_url + ("" if keep else "  (while it runs)")), ("logs", system.logs)])
    show.say("")
    if keep:
        show.text("Everything keeps running until Ctrl-C. In another terminal:")
        show.code(
            f"export COMPLIANCE_HOME={system.logs.parent}",
            "compliance doctor",
            "compliance jobs list",
            f"compliance erasure show {erasure.ERASE}",
        )
        return
    show.table(
        (
            ("compliance demo --keep", "the same, left running to look around"),
            ("compliance up", "the system for your own database"),
            ("compliance --help", "every command; README.md has the rest"),
        )
    )
