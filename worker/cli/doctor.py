"""``compliance doctor``: is everything there that the processes need?"""

import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from typing import Annotated, Any
from urllib.parse import unquote_plus, urlsplit

import typer
from kombu import Connection

from compliance.datamap.model import load_data_map
from compliance.errors import CheckFailed, ComplianceError, ConfigurationError, ExitCode, StoreUnavailable
from compliance.foundation import OWN, find_differences
from compliance.login import Login, find_login, refuse_excess, refuse_other_rights
from compliance.mongo import Databases, driver_errors, open_client
from compliance.provision import provision
from compliance.roles import ON_REQUEST, Grants, Role
from compliance.settings import Settings
from migrations.refused import find_abandoned
from worker.addresses import Addresses
from worker.app import refuse_unknown_tasks
from worker.broker import broker_settings
from worker.cli.runtime import EnvOption, JsonOption, runtime, show_json, show_table
from worker.schedule import load_schedules
from worker.services import connect, load_keyring

Probe = Callable[[], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What MongoDB says to a role that connects; asked for once.

    Attributes:
        set_name: The replica set, if it is one.
        login: What the user may do.
    """

    set_name: str | None
    login: Login


def doctor(
    ctx: typer.Context,
    provision_: Annotated[
        bool,
        typer.Option(
            "--provision",
            help="As an administrator: create the audit log, the roles and the users, with the passwords of their "
            "connection strings where those are set, else new ones.",
        ),
    ] = False,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """Check settings, servers, rights, schedules and data map; exit 3 when something is not as it should be."""
    addresses = runtime(ctx).addresses(env)
    if provision_:
        _provision(addresses)
    # The command that makes a new database ready to be migrated does not ask whether it is.
    probes = _probes(addresses) if provision_ else chain(_probes(addresses), _migrated(addresses))
    rows = [(name, *_probe(probe)) for name, probe in probes]
    if json:
        show_json([{"check": name, "ok": ok, "says": says} for name, ok, says in rows])
    else:
        shown = ((name, "ok" if ok else "wrong", says) for name, ok, says in rows)
        show_table(("check", "", "says"), shown, empty="nothing to check")
    if not all(ok for _, ok, _ in rows):
        raise typer.Exit(int(ExitCode.NOT_AS_IT_SHOULD_BE))


def _provision(addresses: Addresses) -> None:
    grants = _grants(addresses.settings)
    with open_client(addresses.admin_uri(), app_name="compliance-doctor") as client:
        databases = Databases(client, addresses.settings.mongodb_database)
        with driver_errors():
            known = {user["user"] for user in databases.compliance.command("usersInfo")["users"]}
        configured = _configured_passwords(addresses.settings)
        # Who sends is a service, and may be a user of its own that was granted the role; who prunes is a person.
        made = [role for role in Role if role not in ON_REQUEST]
        new = [role for role in made if role.value not in known and role not in configured]
        generated = {role: secrets.token_urlsafe(32) for role in new}
        changed = provision(databases, grants=grants, passwords=configured | generated)
    for line in changed:
        sys.stderr.write(f"created or corrected: {line}\n")
    for role, password in generated.items():
        # The only time these are shown: put them into the secrets of the processes.
        sys.stdout.write(f"{role.value} {password}\n")


def _grants(settings: Settings) -> Grants:
    data_map = load_data_map(settings.data_map)
    return data_map.grants()


def _configured_passwords(settings: Settings) -> dict[Role, str]:
    """Return the passwords that the connection strings of the roles hold; changing one there and here rotates it."""
    passwords = {}
    for role in Role:
        uri = settings.uri_for(role)
        try:
            parts = urlsplit(uri.get_secret_value() if uri else "")
        except ValueError:
            continue  # the check of this connection says what is wrong with it
        if unquote_plus(parts.username or "") == role.value and parts.password:
            passwords[role] = unquote_plus(parts.password)
    return passwords


def _probes(addresses: Addresses) -> Iterator[tuple[str, Probe]]:
    yield "data map", lambda: load_data_map(addresses.settings.data_map).digest[:12]
    if _names_by_pseudonym(addresses.settings):
        yield "pseudonym keys", lambda: _pseudonym_keys(addresses)
    yield "schedules", lambda: f"{len(load_schedules(addresses.settings.schedules))} schedules"
    yield "broker", lambda: _broker(broker_settings(addresses.redis_url(), addresses.settings))
    if addresses.settings.signing_keys is not None:
        yield "signing keys", lambda: _signing_keys(addresses.settings)
    ask = cache(partial(_ask, addresses))
    for role in _roles_in_use(addresses.settings):
        yield f"MongoDB as {role.value}", partial(_mongodb, addresses, ask, role)
    yield "audit log is append-only", lambda: _append_only(ask(Role.WORKER))


def _migrated(addresses: Addresses) -> Iterator[tuple[str, Probe]]:
    yield "our collections and indexes", lambda: _own_collections(addresses)
    yield "collections take writes", lambda: _take_writes(addresses)


def _roles_in_use(settings: Settings) -> Iterator[Role]:
    """Yield the roles to connect as: where the servers are configured, some bring their own connection string."""
    own = {Role.SENDER: settings.sender_uri, Role.ARCHIVER: settings.archiver_uri}
    for role in Role:
        if role not in ON_REQUEST or own[role] is not None or settings.mongodb_uri is None:
            yield role


def _names_by_pseudonym(settings: Settings) -> bool:
    try:
        return load_data_map(settings.data_map).root_key.personal
    except ComplianceError:  # told by the check of the data map
        return False


def _pseudonym_keys(addresses: Addresses) -> str:
    found = addresses.pseudonyms(load_data_map(addresses.settings.data_map))
    return ", ".join(key.name for key in found.keys) if found else "not needed"


def _signing_keys(settings: Settings) -> str:
    keyring = load_keyring(settings)
    refuse_unknown_tasks(keyring)
    return f"{len(keyring.root) if keyring else 0} services may send"


def _probe(probe: Probe) -> tuple[bool, str]:
    try:
        return True, probe()
    except ComplianceError as error:
        return False, str(error)


def _broker(found: Mapping[str, Any]) -> str:
    url, tls, options = (found[f"broker_{name}"] for name in ("url", "use_ssl", "transport_options"))
    try:
        with Connection(url, ssl=tls, transport_options=options, connect_timeout=3) as connection:
            connection.ensure_connection(max_retries=1, timeout=3)
    except (TypeError, ValueError) as error:  # what its client cannot read, such as an option that it does not know
        raise ConfigurationError(f"REDIS_URL: cannot be used ({type(error).__name__})") from None
    except Exception as error:  # noqa: BLE001 - any error of the broker's client
        raise StoreUnavailable(f"the broker does not answer ({type(error).__name__})") from None
    return "answers"


def _ask(addresses: Addresses, role: Role) -> Answer:
    databases = connect(addresses, role, app_name="compliance-doctor")
    with databases.client, driver_errors():
        set_name = databases.client.admin.command("hello").get("setName")
        return Answer(set_name=set_name, login=find_login(databases))


def _mongodb(addresses: Addresses, ask: Callable[[Role], Answer], role: Role) -> str:
    answer = ask(role)
    if answer.set_name is None:
        raise ConfigurationError("is no replica set; transactions and change streams need one")
    refuse_other_rights(answer.login, role, _grants(addresses.settings))
    return f"replica set {answer.set_name}"


def _append_only(worker: Answer) -> str:
    refuse_excess(worker.login)
    return "the worker's user can insert and find, nothing else"


def _own_collections(addresses: Addresses) -> str:
    databases = connect(addresses, Role.WORKER, app_name="compliance-doctor")
    with databases.client:
        problems = [difference.problem for difference in find_differences(databases)]
    if problems:
        raise CheckFailed(f"{', '.join(problems)}; run `compliance migrate up`")
    return f"{len(OWN)} collections, {sum(map(len, OWN.values()))} indexes"


def _take_writes(addresses: Addresses) -> str:
    databases = connect(addresses, Role.WORKER, app_name="compliance-doctor")
    with databases.client:
        refusing = find_abandoned(databases)
    if refusing:
        raise CheckFailed(
            f"a migration ended while {', '.join(refusing)} refused writes; start `compliance reconciler`, or run "
            "`compliance migrate up`"
        )
    return "no migration that ended left one refusing them"
