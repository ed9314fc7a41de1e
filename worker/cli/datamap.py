"""``compliance datamap``: what the map says, and whether the database allows it."""

import json as json_text
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from compliance.datamap.lint import Severity, Violation
from compliance.datamap.lint import lint as check_map
from compliance.datamap.live import read_catalogue
from compliance.datamap.model import load_data_map
from compliance.datamap.schema import json_schema
from compliance.erasure.plan import compile_steps
from compliance.errors import ConfigurationError, ExitCode
from worker.cli.datamap_census import census
from worker.cli.datamap_diff import diff
from worker.cli.files import OutputOption, write_output
from worker.cli.person import STDIN, read_value
from worker.cli.runtime import EnvOption, JsonOption, runtime, show_json, show_table

app = typer.Typer(
    help="Show the data map, check it against the live database, and name people by it.",
    epilog="Example: compliance datamap lint",
)


@app.command(epilog="Example: compliance datamap show")
def show(
    ctx: typer.Context,
    path: Annotated[Path | None, typer.Argument(help="Another map than COMPLIANCE_DATA_MAP.")] = None,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """Show the steps of an erasure, in the order in which they run."""
    data_map = load_data_map(path or runtime(ctx).load(env).data_map)
    steps = compile_steps(data_map)
    if json:
        show_json({"digest": data_map.digest, "map": data_map.model_dump(mode="python")})
        return
    rows = (
        (step.collection, step.path, step.of or step.key, step.verb, step.kept.ground if step.kept else "")
        for step in steps
    )
    show_table(("collection", "path", "refers to", "on erase", "kept on ground of"), rows, empty="the map is empty")


@app.command(epilog="Example: compliance datamap lint --strict")
def lint(
    ctx: typer.Context,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 3 for warnings, too.")] = False,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """Check the data map against itself and the live database; exit 3 when there are errors."""
    with runtime(ctx).services(profile=env) as services:
        found = list(check_map(services.data_map, read_catalogue(services.databases.app, services.data_map)))
    if json:
        show_json({"findings": [asdict(violation) for violation in found]})
    else:
        sys.stdout.write("\n".join(map(_told, found)) + "\n" if found else "no faults\n")
    if any(strict or violation.severity is Severity.ERROR for violation in found):
        raise typer.Exit(int(ExitCode.NOT_AS_IT_SHOULD_BE))


def _told(violation: Violation) -> str:
    first = f"{violation.code} {violation.severity} {violation.place}"
    return f"{first}\n    {violation.why}\n    {violation.fix}"


app.command(epilog="Example: compliance datamap census --baseline datamap.census.json")(census)
app.command(epilog="Example: compliance datamap diff before.yaml after.yaml")(diff)


@app.command(epilog="Example: compliance datamap schema --output datamap.schema.json")
def schema(output: OutputOption = None) -> None:
    """Print the JSON Schema of data maps, for editors."""
    write_output((json_text.dumps(json_schema(), indent=2) + "\n").encode(), output)


@app.command(epilog="Example: compliance datamap pseudonym")
def pseudonym(
    ctx: typer.Context,
    value: Annotated[
        str,
        typer.Argument(help="The id as its document holds it; better on stdin: a shell remembers its commands."),
    ] = STDIN,
    every: Annotated[bool, typer.Option("--all", help="By every key, the present one first.")] = False,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """Print the pseudonym that names a person where the root key of the data map is personal."""
    addresses = runtime(ctx).addresses(env)
    data_map = load_data_map(addresses.settings.data_map)
    pseudonyms = addresses.pseudonyms(data_map)
    if pseudonyms is None:
        raise ConfigurationError(
            f"subject.key {data_map.subject.key} of the data map is not personal: ids are sent as they are"
        )
    given = read_value(value)
    found = pseudonyms.all_of(given) if every else (pseudonyms.make(given),)
    if json:
        show_json({"pseudonyms": found})
    else:
        sys.stdout.write("".join(f"{name}\n" for name in found))
