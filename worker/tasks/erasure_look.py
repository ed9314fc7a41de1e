"""``compliance.erasure.look``: look for people who were erased in the whole database, and ask for their erasure."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from pymongo.collection import Collection

from compliance.erasure.returns import Returned
from compliance.erasure.sightings import RAW, people_in, whole_documents
from compliance.erasure.sweep import BATCH_DOCS, collection_names
from compliance.jobs.run import Outcome, Run
from compliance.mongo import Document, Session, driver_errors
from worker.job import Payload, job
from worker.returns import Asked, ask_again, erased_people, publish
from worker.services import Services

AT_ONCE = 50  # people in one transaction
LOCK = "look"


class LookForErased(Payload):
    """Nothing to choose: everybody who was erased, in every collection."""

    def locks(self, subjects: Sequence[str]) -> tuple[str, ...]:
        """Let one look run at a time."""
        del subjects
        return (LOCK,)


@job("erasure.look", LookForErased, queue="compliance.erasure")
def erasure_look(payload: LookForErased, run: Run, services: Services) -> None:
    """Read every collection; memory holds one batch of documents, and the ids of people who were found.

    A successor reads an unfinished collection again; for whom an erasure waits, none is asked for.
    """
    del payload
    done, people = list(run.job.checkpoint.get("done", [])), int(run.job.checkpoint.get("people", 0))
    seen: set[str] = set()  # whose erasure was asked for in this attempt: it finds the rest, too
    for name in collection_names(services.databases.app):
        if name in done:
            continue
        for found in _found_in(name, run, services):
            new = [one for one in found if one.person not in seen]
            for first in range(0, len(new), AT_ONCE):
                people += _ask(new[first : first + AT_ONCE], {"done": done}, people, run, services)
            seen.update(one.person for one in new)
        done.append(name)
        run.commit(lambda _: Outcome(checkpoint={"done": done, "people": people}))  # noqa: B023 - called at once
    run.commit(lambda _: Outcome(result={"collections": len(done), "people": people}))


def _found_in(name: str, run: Run, services: Services) -> Iterator[list[Returned]]:
    erased = erased_people(services)
    collection: Collection[Any] = services.databases.app.get_collection(name, codec_options=RAW)
    with driver_errors(), collection.find({}, batch_size=BATCH_DOCS) as documents:
        while page := list(islice(documents, BATCH_DOCS)):
            run.check()
            if erased.returned_in([b"".join(document.raw for document in page)]):
                now = services.clock.now()
                yield people_in(whole_documents(name, page), erased, services.data_map, now=now)


def _ask(people: list[Returned], place: Document, before: int, run: Run, services: Services) -> int:
    asked: list[Asked] = []

    def effect(session: Session) -> Outcome:
        asked[:] = ask_again(people, services, seen_in="database", session=session)
        return Outcome(checkpoint={**place, "people": before + len(asked)})

    run.commit(effect)
    publish(asked, services)
    return len(asked)
