"""Settings: every fault at once, no value anywhere."""

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from compliance.errors import ConfigurationError
from compliance.roles import Role
from compliance.settings import Settings, load_settings

SECRET = "s3cr3t-Zz91"
URI = f"mongodb://ann:{SECRET}@db.example/?replicaSet=rs0"
WRONG = {
    "MONGODB_DATABASE": f"{SECRET} with spaces",
    "COMPLIANCE_LOG_LEVEL": SECRET,
    "COMPLIANCE_BATCH_DOCS": SECRET,
    "COMPLIANCE_LEASE_SECONDS": SECRET,
    "COMPLIANCE_SWEEP_SECONDS": "-5",
}


@pytest.fixture
def nowhere(tmp_path: Path) -> Path:
    return tmp_path / "nowhere"


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_empty_environment_asks_for_the_embedded_stack(nowhere: Path) -> None:
    settings = load_settings({}, secrets_directory=nowhere)

    assert (settings.mongodb_uri, settings.redis_url) == (None, None)
    assert (settings.environment, settings.mongodb_database) == ("development", "spotify_ai_agent")


def test_every_wrong_variable_is_named_at_once_and_no_value(nowhere: Path) -> None:
    environ = {**WRONG, "REDIS_URL_FILE": str(nowhere / SECRET)}

    with pytest.raises(ConfigurationError) as caught:
        load_settings(environ, secrets_directory=nowhere)

    assert [name for name in (*WRONG, "REDIS_URL") if f"{name}: " not in str(caught.value)] == []
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "1e400", "86401", "soon"])
def test_a_duration_that_makes_no_sense_is_refused(seconds: str, nowhere: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"COMPLIANCE_LEASE_SECONDS: .*seconds"):
        load_settings({"COMPLIANCE_LEASE_SECONDS": seconds}, secrets_directory=nowhere)


def test_a_window_may_be_longer_than_other_durations(nowhere: Path) -> None:
    settings = load_settings({"COMPLIANCE_SIGNATURE_WINDOW_SECONDS": "604800"}, secrets_directory=nowhere)

    assert settings.signature_window == timedelta(days=7)
    with pytest.raises(ConfigurationError, match="at most 2592000 seconds"):
        load_settings({"COMPLIANCE_SIGNATURE_WINDOW_SECONDS": "2592001"}, secrets_directory=nowhere)


@pytest.mark.parametrize(
    "url",
    [
        f"redis://{SECRET}:notaport/0",
        f"redis://{SECRET}:99999/0",
        f"rediss://:{SECRET}@r:6379/zero",
        f"redis://:p/{SECRET}@r:6379/0",
        f"redis://[{SECRET}/0",
        f"amqp://u:{SECRET}@r:x//",
        f"sentinel://:{SECRET}@a:1;sentinel://b:x/0",
    ],
)
def test_an_address_of_the_broker_that_leads_nowhere_is_named_and_not_shown(url: str, nowhere: Path) -> None:
    with pytest.raises(ConfigurationError, match="REDIS_URL: Value error, expected redis://") as caught:
        load_settings({"REDIS_URL": url}, secrets_directory=nowhere)

    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://r",
        "redis:///7",
        "redis://:p@[::1]:6379/0",
        "rediss://u:p@r:6380//15",
        "amqp://u:p@r:5672/a/b",
        "sentinel://:p@a:1;sentinel://b:2/0",
        "memory://",
    ],
)
def test_an_address_of_the_broker_that_its_client_can_read_is_taken(url: str, nowhere: Path) -> None:
    settings = load_settings({"REDIS_URL": url}, secrets_directory=nowhere)

    assert settings.redis_url == SecretStr(url)


def test_jobs_are_kept_for_longer_than_signatures_are_good(nowhere: Path) -> None:
    days = {"COMPLIANCE_JOB_RETENTION_DAYS": "1"}
    keys = {"COMPLIANCE_SIGNING_KEYS": SECRET}
    shorter = {"COMPLIANCE_SIGNATURE_WINDOW_SECONDS": "82799"}  # a signature may be from an hour ahead
    longer = {"COMPLIANCE_SIGNATURE_WINDOW_SECONDS": "82800"}

    assert load_settings(days, secrets_directory=nowhere).job_retention_days == 1
    assert load_settings(days | keys | shorter, secrets_directory=nowhere).signing_keys is not None
    with pytest.raises(ConfigurationError, match=r"JOB_RETENTION_DAYS: .* COMPLIANCE_SIGNATURE_WINDOW_SEC"):
        load_settings(days | keys | longer, secrets_directory=nowhere)


def test_secrets_are_not_shown_by_repr(nowhere: Path) -> None:
    environ = {
        "COMPLIANCE_SIGNING_KEYS": SECRET,
        "MONGODB_URI": URI,
        "REDIS_URL": f"redis://:{SECRET}@r",
        "SENTRY_DSN": f"https://{SECRET}@s/1",
    }

    settings = load_settings(environ, secrets_directory=nowhere)

    assert SECRET not in f"{settings!r} {settings} {settings.model_dump()}"


def test_a_file_variable_brings_the_value(tmp_path: Path, nowhere: Path) -> None:
    (tmp_path / "uri").write_text(f"{URI}\n")

    settings = load_settings({"MONGODB_URI_FILE": str(tmp_path / "uri")}, secrets_directory=nowhere)

    assert settings.mongodb_uri == SecretStr(URI)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_named_by_its_variable(
    content: bytes | None, tmp_path: Path, nowhere: Path
) -> None:
    path = tmp_path / SECRET
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ConfigurationError, match="REDIS_URL: its file cannot be read") as caught:
        load_settings({"REDIS_URL_FILE": str(path)}, secrets_directory=nowhere)

    assert SECRET not in str(caught.value)


def test_a_file_that_is_not_needed_may_be_missing(nowhere: Path) -> None:
    environ = {"REDIS_URL_FILE": str(nowhere), "REDIS_URL": "redis://r"}

    assert load_settings(environ, secrets_directory=nowhere).redis_url == SecretStr("redis://r")


def test_the_environment_goes_before_the_secrets_directory(tmp_path: Path) -> None:
    (tmp_path / "MONGODB_URI").write_text("mongodb://from-directory")
    (tmp_path / "REDIS_URL").write_text("redis://from-directory")

    settings = load_settings({"REDIS_URL": "redis://from-environment"}, secrets_directory=tmp_path)

    assert settings.mongodb_uri == SecretStr("mongodb://from-directory")
    assert settings.redis_url == SecretStr("redis://from-environment")


def test_an_empty_variable_counts_as_absent_and_hides_no_secret(tmp_path: Path) -> None:
    (tmp_path / "MONGODB_URI").write_text(URI)

    settings = load_settings({"MONGODB_URI": "", "REDIS_URL": ""}, secrets_directory=tmp_path)

    assert (settings.mongodb_uri, settings.redis_url) == (SecretStr(URI), None)


def test_a_profile_goes_over_the_environment(in_folder: Path, nowhere: Path) -> None:
    (in_folder / "staging.env").write_text("MONGODB_DATABASE=of_profile\nREDIS_URL=\nOTHER=1\n")

    settings = load_settings(
        {"MONGODB_DATABASE": "of_environ", "REDIS_URL": "redis://r"}, profile="staging", secrets_directory=nowhere
    )

    assert (settings.environment, settings.mongodb_database) == ("staging", "of_profile")
    assert settings.redis_url == SecretStr("redis://r")


@pytest.mark.parametrize(
    ("profile", "said"),
    [("production", ""), ("prod", ""), ("development", ""), ("staging", "staging"), ("prod", "Production")],
)
def test_a_profile_without_a_file_names_the_environment(
    profile: str, said: str, in_folder: Path, nowhere: Path
) -> None:
    settings = load_settings({"COMPLIANCE_ENV": said}, profile=profile, secrets_directory=nowhere)

    assert settings.environment == {"prod": "production"}.get(profile, profile)


@pytest.mark.parametrize(("profile", "said"), [("staging", ""), ("nope", "staging"), ("production", "staging")])
def test_a_profile_whose_file_is_missing_is_refused_where_the_variables_are_of_another(
    profile: str, said: str, in_folder: Path, nowhere: Path
) -> None:
    with pytest.raises(ConfigurationError, match=rf"there is no {profile}\.env in this folder"):
        load_settings({"COMPLIANCE_ENV": said, "MONGODB_URI": URI}, profile=profile, secrets_directory=nowhere)


@pytest.mark.parametrize("profile", ["../secrets", "a b", "", "a/b", "prod\n"])
def test_a_profile_that_is_no_plain_name_is_refused(profile: str, in_folder: Path, nowhere: Path) -> None:
    with pytest.raises(ConfigurationError, match="--env takes the name of a profile"):
        load_settings({}, profile=profile, secrets_directory=nowhere)


def test_a_profile_that_is_no_text_is_named(in_folder: Path, nowhere: Path) -> None:
    (in_folder / "staging.env").write_bytes(b"REDIS_URL=\xff")

    with pytest.raises(ConfigurationError, match=r"staging\.env cannot be read"):
        load_settings({}, profile="staging", secrets_directory=nowhere)


@pytest.mark.parametrize(
    ("variable", "says"),
    [
        ("COMPLIANCE_LEAS_SECONDS", "; did you mean COMPLIANCE_LEASE_SECONDS?"),
        ("COMPLIANCE_SIGNIN_KEYS_FILE", "; did you mean COMPLIANCE_SIGNING_KEYS?"),
        ("COMPLIANCE_MONGODB_URI", "; did you mean MONGODB_URI?"),
        ("COMPLIANCE_Q", ""),
    ],
)
@pytest.mark.parametrize("where", ["environment", "profile", "secrets"])
def test_a_setting_that_does_not_exist_is_refused_with_the_nearest_one(
    variable: str, says: str, where: str, in_folder: Path, tmp_path: Path
) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    if where == "profile":
        (in_folder / "staging.env").write_text(f"{variable}={SECRET}\n")
    elif where == "secrets":
        (secrets / variable).write_text(SECRET)
    environ = {variable: SECRET} if where == "environment" else {}

    with pytest.raises(ConfigurationError) as caught:
        load_settings(environ, profile="staging" if where == "profile" else None, secrets_directory=secrets)
    assert str(caught.value) == f"these settings are wrong: {variable}: there is no such setting{says}"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PATH", "/bin"),
        ("OTHER_COMPLIANCE_X", "1"),
        ("COMPLIANCE_WORKER_PASSWORD", "x"),
        ("COMPLIANCE_FLOWER_SERVICE_HOST", "10.0.0.1"),
        ("COMPLIANCE_FLOWER_SERVICE_PORT_HTTP", "5555"),
        ("COMPLIANCE_FLOWER_PORT", "tcp://10.0.0.1:5555"),
        ("COMPLIANCE_FLOWER_PORT_5555_TCP", "tcp://10.0.0.1:5555"),
        ("COMPLIANCE_FLOWER_PORT_5555_TCP_ADDR", "10.0.0.1"),
    ],
)
def test_variables_of_others_are_ignored(variable: str, value: str, nowhere: Path) -> None:
    assert load_settings({variable: value}, secrets_directory=nowhere) == Settings()


def test_what_would_let_no_job_end_or_sweep_without_a_pause_is_refused(nowhere: Path) -> None:
    short = {"COMPLIANCE_LEASE_SECONDS": "3", "COMPLIANCE_JOB_LIMIT_SECONDS": "2.9", "COMPLIANCE_SWEEP_SECONDS": "0.09"}
    least = {"COMPLIANCE_LEASE_SECONDS": "3", "COMPLIANCE_JOB_LIMIT_SECONDS": "3", "COMPLIANCE_SWEEP_SECONDS": "0.1"}

    with pytest.raises(ConfigurationError) as caught:
        load_settings(short, secrets_directory=nowhere)
    assert "JOB_LIMIT_SECONDS: Value error, expected no less than COMPLIANCE_LEASE_SECONDS" in str(caught.value)
    assert "SWEEP_SECONDS: Value error, expected at least 0.1 and at most 86400 seconds" in str(caught.value)
    assert load_settings(least, secrets_directory=nowhere).job_limit == timedelta(seconds=3)
    with pytest.raises(ConfigurationError, match="COMPLIANCE_JOB_LIMIT_SECONDS: "):
        load_settings({"COMPLIANCE_LEASE_SECONDS": "21601"}, secrets_directory=nowhere)


def test_a_port_that_is_a_number_is_no_link_of_a_cluster(nowhere: Path) -> None:
    with pytest.raises(ConfigurationError, match="COMPLIANCE_METRIC_PORT: there is no such setting; did you mean COMP"):
        load_settings({"COMPLIANCE_METRIC_PORT": "9100"}, secrets_directory=nowhere)


@given(
    environ=st.fixed_dictionaries(
        {},
        optional={
            "MONGODB_URI": st.just(URI),
            "MONGODB_DATABASE": st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,47}", fullmatch=True),
            "COMPLIANCE_BATCH_DOCS": st.integers(1, 5000).map(str),
            "COMPLIANCE_LEASE_SECONDS": st.floats(0.001, 21_600).map(str),
            "COMPLIANCE_HOME": st.just("/var/lib/compliance"),
            "COMPLIANCE_LOG_LEVEL": st.sampled_from(["DEBUG", "ERROR"]),
        },
    )
)
def test_child_processes_read_the_same_settings(environ: dict[str, str]) -> None:
    settings = load_settings(environ, secrets_directory=Path("/nowhere"))

    assert load_settings(settings.to_environ(), secrets_directory=Path("/nowhere")) == settings
    assert set(settings.to_environ()) == set(environ)


def test_what_was_not_set_is_not_handed_to_child_processes() -> None:
    assert Settings.model_validate({"COMPLIANCE_LEASE_SECONDS": timedelta(seconds=2)}).to_environ() == {
        "COMPLIANCE_LEASE_SECONDS": "2.0"
    }


@pytest.mark.parametrize(
    ("role", "variable"),
    [
        (Role.MIGRATOR, "COMPLIANCE_MIGRATOR_URI"),
        (Role.SEALER, "COMPLIANCE_SEALER_URI"),
        (Role.AUDITOR, "COMPLIANCE_AUDITOR_URI"),
        (Role.SENDER, "COMPLIANCE_SENDER_URI"),
    ],
)
def test_each_role_falls_back_to_the_uri_of_the_worker(role: Role, variable: str, nowhere: Path) -> None:
    shared = load_settings({"MONGODB_URI": URI}, secrets_directory=nowhere)
    own = load_settings({"MONGODB_URI": URI, variable: "mongodb://own"}, secrets_directory=nowhere)

    assert (shared.uri_for(role), own.uri_for(role)) == (SecretStr(URI), SecretStr("mongodb://own"))
    assert own.uri_for(Role.WORKER) == SecretStr(URI)
    assert load_settings({}, secrets_directory=nowhere).uri_for(role) is None


@pytest.mark.parametrize("name", ["Production", "PROD", " production "])
def test_production_is_production_however_it_is_written(name: str) -> None:
    assert load_settings({"COMPLIANCE_ENV": name}).environment == "production"


def test_a_dsn_that_reports_nowhere_is_a_fault() -> None:
    with pytest.raises(ConfigurationError, match="SENTRY_DSN"):
        load_settings({"SENTRY_DSN": "foo"})


def test_nobody_elses_user_serves_the_archiver(nowhere: Path) -> None:
    own = load_settings({"MONGODB_URI": URI, "COMPLIANCE_ARCHIVER_URI": "mongodb://own"}, secrets_directory=nowhere)

    assert own.uri_for(Role.ARCHIVER) == SecretStr("mongodb://own")
    assert load_settings({"MONGODB_URI": URI}, secrets_directory=nowhere).uri_for(Role.ARCHIVER) is None


@pytest.mark.parametrize("days", ["0", "-1", "36501", "some"])
def test_a_retention_period_of_the_audit_log_that_makes_no_sense_is_refused(days: str, nowhere: Path) -> None:
    assert load_settings({}, secrets_directory=nowhere).audit_retention_days == 365
    with pytest.raises(ConfigurationError, match="COMPLIANCE_AUDIT_RETENTION_DAYS: "):
        load_settings({"COMPLIANCE_AUDIT_RETENTION_DAYS": days}, secrets_directory=nowhere)


def test_the_name_of_a_copy_is_no_name_of_an_application_database(nowhere: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"MONGODB_DATABASE: .*which rehearsals drop"):
        load_settings({"MONGODB_DATABASE": "shop_rehearsal"}, secrets_directory=nowhere)
