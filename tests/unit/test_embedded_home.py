"""Where a stack keeps its files, and who can read them."""

import json
import stat
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from compliance.datamap.pseudonym import parse_pseudonym_keys
from compliance.errors import ConfigurationError
from compliance.roles import Role
from worker.embedded.home import Secrets, State, locate_home, resolve_home, write_private

CHECKOUT = '[project]\nname = "compliance-worker"\n'
OTHER_PROJECT = '[project]\nname = "something-else"\n'


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_home_that_was_asked_for_goes_first(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(CHECKOUT)

    assert locate_home(tmp_path / "mine", cwd=tmp_path, user_data=tmp_path / "data") == tmp_path / "mine"


def test_inside_a_checkout_the_home_is_its_hidden_folder(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(CHECKOUT)
    deep = tmp_path / "docs" / "deep"
    deep.mkdir(parents=True)

    assert locate_home(None, cwd=deep, user_data=tmp_path / "data") == tmp_path / ".compliance"


@pytest.mark.parametrize("project", [OTHER_PROJECT, "[tool.x]\n", "no toml", ""])
def test_in_another_project_the_home_is_the_users_data_directory(tmp_path: Path, project: str) -> None:
    (tmp_path / "pyproject.toml").write_text(project)

    assert locate_home(None, cwd=tmp_path, user_data=tmp_path / "data") == tmp_path / "data"


def test_a_new_home_is_for_its_owner_only(tmp_path: Path) -> None:
    home = resolve_home(tmp_path / "a" / "home")

    assert mode(home) == 0o700


def test_a_home_that_cannot_be_made_is_an_error_that_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigurationError, match="set COMPLIANCE_HOME to a directory that you may write"):
        resolve_home(tmp_path / "file" / "home")


def test_secrets_are_generated_once_and_read_again(tmp_path: Path) -> None:
    first = Secrets.load_or_create(tmp_path)

    assert Secrets.load_or_create(tmp_path) == first
    assert Secrets.load(tmp_path) == first


def test_every_user_has_a_password_of_its_own(tmp_path: Path) -> None:
    secrets = Secrets.generate()

    assert set(secrets.passwords) == {"admin", *(role.value for role in Role)}
    assert len({*secrets.passwords.values(), secrets.redis, secrets.key_file}) == len(Role) + 3


def test_a_user_that_is_new_gets_a_password_and_the_others_keep_theirs(tmp_path: Path) -> None:
    secrets = Secrets.generate()
    old = {user: password for user, password in secrets.passwords.items() if user != "compliance_sender"}
    write_private(tmp_path / "secrets.json", json.dumps(asdict(replace(secrets, passwords=old))))

    grown = Secrets.load_or_create(tmp_path)

    assert grown.passwords.items() > old.items()
    assert (grown.redis, grown.key_file) == (secrets.redis, secrets.key_file)
    assert Secrets.load(tmp_path) == grown
    assert mode(tmp_path / "secrets.json") == 0o600


def test_secrets_of_an_older_stack_gain_a_key_for_pseudonyms_and_keep_it(tmp_path: Path) -> None:
    old = asdict(Secrets.generate())
    del old["pseudonym"]
    write_private(tmp_path / "secrets.json", json.dumps(old))

    grown = Secrets.load_or_create(tmp_path)

    assert parse_pseudonym_keys(f"embedded:{grown.pseudonym}")
    assert Secrets.load_or_create(tmp_path) == grown


def test_secrets_are_readable_by_their_owner_only_and_never_shown(tmp_path: Path) -> None:
    secrets = Secrets.load_or_create(tmp_path)

    assert mode(tmp_path / "secrets.json") == 0o600
    assert repr(secrets) == "Secrets()"


def test_damaged_secrets_are_an_error_and_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "secrets.json").write_text('{"passwords": ')

    with pytest.raises(ConfigurationError, match="cannot be read"):
        Secrets.load_or_create(tmp_path)
    assert (tmp_path / "secrets.json").read_text() == '{"passwords": '


def test_state_is_read_as_it_was_saved(tmp_path: Path) -> None:
    state = State(mongod_ports=(20001, 20002), valkey_port=20003, is_open=True)
    state.save(tmp_path)

    assert State.load(tmp_path) == state


@pytest.mark.parametrize("text", [None, "", "[]", '{"unknown": 1}'])
def test_without_a_usable_state_the_ports_are_open_again(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "state.json").write_text(text)

    assert State.load(tmp_path) == State()


def test_a_private_file_replaces_a_public_one_and_leaves_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")

    assert (path.read_text(), mode(path), list(tmp_path.iterdir())) == ("new", 0o600, [path])
