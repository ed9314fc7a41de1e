"""A migration that is held back while it runs, on real servers."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from deployment import Deployment
from migrated import write_scripts
from waiting import wait_until

from compliance.audit.entry import Cause
from compliance.audit.log import AuditLog
from compliance.clock import SystemClock
from compliance.errors import InvalidPayload
from compliance.roles import Role, role_name
from migrations.progress import Progress, progress_of
from migrations.runner import Runner
from migrations.throttle import canary
from migrations.throttle.control import Control, change_control, read_control
from migrations.throttle.decide import Pace
from migrations.throttle.factor import Factor, Moment
from migrations.throttle.factors import FACTORS
from migrations.throttle.throttle import Throttle

WALK = '''
        """Count."""


        def up(ctx):
            """Each once."""
            ctx.walk("things", where={}, update={"$inc": {"n": 1}})


        def down(ctx):
            """Nothing."""
'''


class Ticking:
    """A clock that goes on only when somebody waits."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 5, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment

    def sleep(self, duration: timedelta) -> None:
        self.moment += duration


def other(_: object, moment: Moment) -> str | None:
    """Another reason, for some seconds."""
    return "paused" if 8 <= moment.now.second < 14 else None


def change(runner: Runner, **changes: Any) -> Control:
    log = AuditLog(runner.databases, Cause(channel="test"))
    return change_control(runner.databases, log, changes, by="test", clock=SystemClock())


def test_every_factor_can_be_read_by_the_migrator_and_lets_an_idle_server_work(deployment: Deployment) -> None:
    services = deployment.services(Role.MIGRATOR)
    throttle = Throttle(databases=services.databases, clock=services.clock)

    assert set(throttle._readings()) == set(FACTORS)
    assert throttle.unread == {}


def test_a_run_that_is_paused_waits_says_why_and_goes_on_when_told(empty: Deployment, tmp_path: Path) -> None:
    app, lines, paused = empty.admin.app["things"], list[str](), list[bool]()
    app.insert_many([{"_id": n, "n": 0} for n in range(60)])
    scripts = write_scripts(tmp_path / "scripts", {"v001_data_it.py": WALK})
    deployment = empty.with_settings(migrations=scripts, batch_docs=2)
    person = deployment.runner()

    def pause_once() -> bool:
        if not paused and app.find_one({"n": 1}) is not None:
            paused.append(True)
            change(person, paused=True)
        return False

    runner = deployment.runner(most_docs=2, report=lines.append, should_stop=pause_once)
    going = threading.Thread(target=runner.up)
    going.start()
    wait_until(lambda: any("waiting: paused by a person" in line for line in lines), timeout=30, what="it waits")
    wait_until(lambda: any(one.waiting for one in progress_of(empty.admin)), timeout=10, what="its place says why")
    (progress,) = progress_of(empty.admin)
    assert 0 < progress.documents < 60
    assert progress.of == 60
    change(person, paused=False)
    going.join(60)

    assert not going.is_alive()
    assert [one["n"] for one in app.find()] == [1] * 60
    assert progress_of(empty.admin) == []
    assert [entry["details"] for entry in empty.entries(action="migration.throttled")] == [
        {"paused": "True"},
        {"paused": "False"},
    ]


def test_a_factor_that_cannot_be_read_is_told_once_and_again_when_it_can(empty: Deployment, tmp_path: Path) -> None:
    empty.admin.app["things"].insert_many([{"_id": n, "n": 0} for n in range(8)])
    scripts = write_scripts(tmp_path / "scripts", {"v001_data_it.py": WALK, "v002_data_it.py": WALK})
    deployment = empty.with_settings(migrations=scripts, batch_docs=2)
    person, lines, server = deployment.runner(), list[str](), empty.admin.client.admin
    person.up("000")
    change(person, paused=True)
    role = {"privileges": [{"resource": {"cluster": True}, "actions": ["replSetGetStatus"]}]}
    name = role_name(Role.MIGRATOR, empty.name)
    going = threading.Thread(target=deployment.runner(report=lines.append).up)
    going.start()
    wait_until(lambda: any("waiting: paused" in line for line in lines), timeout=30, what="it waits")
    server.command("revokePrivilegesFromRole", name, **role)
    wait_until(lambda: any(one.unread for one in progress_of(empty.admin)), timeout=10, what="its place says so")
    (blind,) = progress_of(empty.admin)
    server.command("grantPrivilegesToRole", name, **role)
    wait_until(lambda: not any(one.unread for one in progress_of(empty.admin)), timeout=10, what="it can be read")
    change(person, paused=False)
    going.join(60)

    assert not going.is_alive()
    assert blind.fields["unread"] == ["replica_lag: Unauthorized"]
    assert "paused by a person" in blind.waiting[0]
    assert [line.strip() for line in lines if "throttle can" in line] == [
        "the throttle cannot read replica_lag, which holds nothing back meanwhile: Unauthorized",
        "the throttle can read replica_lag again",
    ]
    assert [one["n"] for one in empty.admin.app["things"].find()] == [2] * 8


def no_such_field(_: object) -> object:
    return {}["wiredTiger"]


def test_what_cannot_be_read_is_told_once_for_all_scripts_of_a_run(deployment: Deployment) -> None:
    known = set[str]()
    pace = Pace(size=7, took=None, most=9)
    factors = {"cache": Factor(read=no_such_field, judge=lambda _, __: "never asked")}
    said = []
    for _ in range(2):
        throttle = Throttle(databases=deployment.admin, clock=Ticking(), factors=factors, unread_told=known)
        assert throttle.next_batch(pace, wait=lambda _: None, told=lambda _: None) == 7
        said.append(throttle.news_of_unread())

    assert said == [["the throttle cannot read cache, which holds nothing back meanwhile: KeyError"], []]


def test_a_line_of_progress_says_what_is_not_read() -> None:
    progress = Progress.of_place({"of": 4, "documents": 2, "unread": ["replica_lag: Unauthorized"]}, what="walk things")

    assert progress.line == "walk things: 2 of 4 documents (the throttle cannot read replica_lag: Unauthorized)"


def test_a_reason_of_which_only_the_number_changes_is_told_every_few_seconds(deployment: Deployment) -> None:
    clock, lines = Ticking(), list[tuple[str, ...]]()
    began = clock.now()

    def judge(_: object, moment: Moment) -> str | None:
        passed = (moment.now - began).total_seconds()
        return f"{passed:.1f} s behind" if passed < 14 else None

    factors = {"lag": Factor(read=lambda _: None, judge=judge), "other": Factor(read=lambda _: None, judge=other)}
    throttle = Throttle(databases=deployment.services(Role.MIGRATOR).databases, clock=clock, factors=factors)

    throttle.next_batch(Pace(size=7, took=None, most=9), wait=clock.sleep, told=lines.append)

    assert lines == [("0.0 s behind",), ("5.0 s behind",), ("8.0 s behind", "paused"), ("13.0 s behind", "paused")]


def test_a_setting_is_kept_beside_the_others_and_a_wrong_one_changes_nothing(deployment: Deployment) -> None:
    runner = deployment.runner()
    assert read_control(runner.databases) == Control()
    change(runner, max_lag_seconds=5.0)
    change(runner, window="22:00-06:00")

    with pytest.raises(InvalidPayload, match="a batch takes from"):
        change(runner, batch_seconds=0.0)

    assert read_control(runner.databases) == Control(max_lag_seconds=5.0, window="22:00-06:00")
    assert len(deployment.entries(action="migration.throttled")) == 2


def test_the_canary_knows_how_much_slower_writes_became(deployment: Deployment) -> None:
    databases, clock = deployment.services(Role.MIGRATOR).databases, SystemClock()

    with canary.watched(databases, clock) as found:
        assert found.idle >= 0.001
        assert found.slower is None
        wait_until(lambda: found.slower is not None, timeout=30, what="enough writes are measured")
        found.recent.extend([found.idle * 50] * canary.RECENT_WRITES)
        assert found.slower is not None
        assert found.slower > 2


def test_a_step_that_waits_takes_slow_writes_for_those_of_others(deployment: Deployment) -> None:
    """Nothing of ours runs while it waits, so they stay slow without us: it must not wait for ever."""
    services = deployment.services(Role.MIGRATOR)
    waited: list[object] = []
    slow_ones = canary.Canary(services.databases, services.clock, idle=0.001)
    slow_ones.recent.extend([0.05] * canary.RECENT_WRITES)
    throttle = Throttle(databases=services.databases, clock=services.clock, canary=slow_ones)

    def wait(duration: object) -> None:
        waited.append(duration)
        slow_ones.written += canary.RECENT_WRITES // 2

    size = throttle.next_batch(Pace(size=7, took=None, most=9), wait=wait, told=lambda _: None)

    assert (size, len(waited)) == (7, 2)
