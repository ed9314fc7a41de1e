"""How fast every collection is searched for identifiers, beside a scan of the same collection that looks at nothing."""

from bson import ObjectId

from bench.erasure_people import EVENTS, People, open_people
from bench.harness import Verdicts, alternate, median_ratio, seconds
from compliance.datamap.subject import Identity
from compliance.erasure.sweep import BATCH_DOCS, Needles, compile_needles, sweep_collection

RATE = 0.5  # of a raw scan
MANY = 10_000


def sweep_speed(documents: int, rounds: int) -> Verdicts:
    """Compare the speeds in MB/s, for one person and for many, in turn."""
    verdicts = Verdicts()
    with open_people() as people:
        people.add(documents // 100, 100)
        megabytes = people.bench.admin.app.command("collStats", EVENTS)["size"] / 1_000_000
        raw_scan(people)
        for who in (1, MANY):
            needles = compile_needles(_nobody(number) for number in range(who))
            pairs = alternate(rounds, lambda: megabytes / _sweep(people, needles), lambda: megabytes / _raw(people))  # noqa: B023
            for name, speeds in zip(("sweep", "raw scan"), zip(*pairs, strict=True), strict=True):
                verdicts.say(
                    f"{name} for {who:,}, MB/s of {megabytes:,.0f} MB: " + ", ".join(f"{s:.0f}" for s in speeds)
                )
            verdicts.at_least(f"speed of a sweep for {who:,} people beside a raw scan", median_ratio(pairs), RATE)
    return verdicts


def raw_scan(people: People) -> int:
    """Read the collection as bytes; return how many."""
    found = people.services.databases.app[EVENTS].find_raw_batches({}, batch_size=BATCH_DOCS)
    return sum(len(batch) for batch in found)  # of bytes


def _nobody(number: int) -> Identity:
    return Identity({"user_id": ObjectId(), "email": f"nobody{number}@example.net"})


def _sweep(people: People, needles: Needles) -> float:
    def sweep() -> None:
        if any(sweep_collection(people.services.databases.app[EVENTS], needles)):
            raise SystemExit("found somebody who is not there")

    return seconds(sweep)


def _raw(people: People) -> float:
    return seconds(lambda: raw_scan(people))
