"""``compliance erasure hold|release``: keep data of a person that a case needs, and let it go again."""

import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from compliance.audit.entry import Cause
from compliance.datamap.subject import parse_subject_id
from compliance.erasure.holds import Holds, Part
from compliance.erasure.left_out import refuse_unknown
from worker.cli.person import SubjectArgument, other_names
from worker.cli.runtime import EnvOption, JsonOption, runtime, show_json

CaseOption = Annotated[str, typer.Option("--case", help="The id of the case.")]
CollectionOption = Annotated[
    str | None, typer.Option("--collection", help="Only this collection, and what is needed to find its documents.")
]
FieldOption = Annotated[
    str | None, typer.Option("--field", metavar="PATH", help="Only where an erasure would take this field of it.")
]

BY_HAND = Cause(channel="cli")


def hold(
    ctx: typer.Context,
    subject_id: SubjectArgument,
    case: CaseOption,
    until: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Last day; none: until released.")
    ] = None,
    collection: CollectionOption = None,
    field: FieldOption = None,
    reviewer: Annotated[str | None, typer.Option(help="The id of who looks at it again; no name.")] = None,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """Place a legal hold on a person (GDPR Art. 17(3)(e)): while it lasts, what it covers is not erased."""
    part = Part(collection=collection, field=field)
    with runtime(ctx).services(profile=env) as services:
        person = parse_subject_id(subject_id, services.data_map)
        refuse_unknown(collection, field, services.data_map)
        Holds(services.databases).place(
            person,
            case,
            part=part,
            until=until.replace(hour=23, minute=59, second=59, tzinfo=UTC) if until else None,
            reviewer=reviewer,
            now=services.clock.now(),
            actor=runtime(ctx).actor(services.settings),
            log=services.log.caused_by(BY_HAND),
        )
    _say("held", case, part, as_json=json)


def release(
    ctx: typer.Context,
    subject_id: SubjectArgument,
    case: CaseOption,
    collection: CollectionOption = None,
    field: FieldOption = None,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """Release a legal hold; the erasures that it kept back go on by themselves."""
    part = Part(collection=collection, field=field)
    with runtime(ctx).services(profile=env) as services:
        person = parse_subject_id(subject_id, services.data_map)
        Holds(services.databases).release(
            person,
            case,
            part=part,
            also=other_names(services, person),
            now=services.clock.now(),
            actor=runtime(ctx).actor(services.settings),
            log=services.log.caused_by(BY_HAND),
        )
    _say("released", case, part, as_json=json)


def _say(what: str, case: str, part: Part, *, as_json: bool) -> None:
    if as_json:
        show_json({"state": what, "case": case, "collection": part.collection, "field": part.field})
        return
    sys.stdout.write(f"{what}: case {case}{f', {part}' if part.collection else ''}\n")
