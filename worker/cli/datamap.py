"""``compliance datamap``: what the map says, and whether the database allows it."""

import json as json_text
import sys
from pathlib import Path
from typing import Annotated

import typer

from compliance.datamap.lint import impossible_actions
from compliance.datamap.model import load_data_map
from compliance.datamap.schema import json_schema
from compliance.erasure.feasible import live_schemas
from compliance.erasure.plan import compile_steps
from compliance.errors import ConfigurationError, ExitCode
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


@app.command(epilog="Example: compliance datamap lint")
def lint(ctx: typer.Context, env: EnvOption = None, json: JsonOption = False) -> None:
    """Look for actions that a validator of the live database would refuse; exit 3 when there are any."""
    with runtime(ctx).services(profile=env) as services:
        faults = list(impossible_actions(services.data_map, live_schemas(services.databases.app)))
    if json:
        show_json({"faults": faults})
    else:
        sys.stdout.write("\n".join(faults or ["no faults"]) + "\n")
    if faults:
        raise typer.Exit(int(ExitCode.NOT_AS_IT_SHOULD_BE))


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
