"""``compliance datamap census``: what the database holds and the map does not say."""

import json as json_text
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from compliance.datamap.census import SAMPLE_DOCS, Census, suggest, take_census
from compliance.errors import ConfigurationError, ExitCode
from compliance.statefile import replace_file
from worker.cli.runtime import EnvOption, JsonOption, runtime, show_json

VERSION = "datamap-census/v1"


def census(
    ctx: typer.Context,
    sample: Annotated[int, typer.Option("--sample", min=1, help="Documents of each collection.")] = SAMPLE_DOCS,
    seed: Annotated[int, typer.Option("--seed", help="The same seed reads the same documents.")] = 0,
    baseline: Annotated[
        Path | None, typer.Option("--baseline", metavar="FILE", help="What is known, and does not count.")
    ] = None,
    write: Annotated[
        Path | None, typer.Option("--write-baseline", metavar="FILE", help="Write what is seen, for --baseline.")
    ] = None,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """Look at samples for undeclared paths and personal data; exit 3 for what no baseline knows. Prints no value."""
    known = _read(baseline) if baseline else frozenset()
    with runtime(ctx).services(profile=env) as services:
        seen = take_census(services.databases.app, services.data_map, sample=sample, seed=seed)
    new = [one for one in seen.sightings if one.name not in known]
    if write is not None:
        names = sorted(one.name for one in seen.sightings)
        replace_file(
            write.resolve(), (json_text.dumps({"apiVersion": VERSION, "known": names}, indent=2) + "\n").encode()
        )
        new = []
    if json:
        show_json(_result(seen, known, seed))
    else:
        for one in new:
            place = f"{one.collection}{'.' if one.path else ''}{one.path}"
            sys.stdout.write(f"{place}: {one.what}, in {seen.sightings[one]} documents\n    {suggest(one)}\n")
        sys.stdout.write(_coverage(seen, seed, len(seen.sightings) - len(new)))
    if new:
        raise typer.Exit(int(ExitCode.NOT_AS_IT_SHOULD_BE))


def _result(seen: Census, known: frozenset[str], seed: int) -> dict[str, Any]:
    return {
        "seed": seed,
        "findings": [
            {**asdict(one), "documents": count, "new": one.name not in known, "fix": suggest(one)}
            for one, count in seen.sightings.items()
        ],
        "coverage": {name: asdict(found) for name, found in seen.coverage.items()},
    }


def _coverage(seen: Census, seed: int, known: int) -> str:
    found = seen.coverage.values()
    looked_at, documents = sum(one.looked_at for one in found), sum(one.documents for one in found)
    cut = sum(one.is_cut for one in found)
    return (
        f"looked at {looked_at} of {documents} documents in {len(seen.coverage)} collections, seed {seed}; "
        f"{known} findings are known\n"
        + (f"{cut} collections have more paths than are looked at: their field names are data\n" if cut else "")
    )


def _read(path: Path) -> frozenset[str]:
    try:
        content = json_text.loads(path.read_bytes())
        known = content["known"] if content["apiVersion"] == VERSION else None
        if not isinstance(known, list) or not all(isinstance(one, str) for one in known):
            raise ConfigurationError(f"{path} is no baseline; write one with --write-baseline")
        return frozenset(known)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError):
        raise ConfigurationError(f"{path} is no baseline; write one with --write-baseline") from None
