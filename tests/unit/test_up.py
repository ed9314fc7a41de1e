"""Processes that run on one machine do not share what each must have alone."""

from pathlib import Path

from compliance.settings import Settings
from worker.processes import PROCESSES
from worker.up import own_environ


def test_each_process_has_its_own_heartbeat_file_and_port() -> None:
    own = own_environ(Settings(metrics_port=9464, heartbeat_file=Path("/tmp/alive")))
    files = [environ["COMPLIANCE_HEARTBEAT_FILE"] for environ in own.values()]

    assert own["watcher"]["COMPLIANCE_METRICS_PORT"] == "9465"
    assert "COMPLIANCE_METRICS_PORT" not in own["worker"]
    assert len(set(files)) == len(PROCESSES)


def test_without_settings_there_is_nothing_to_add() -> None:
    assert own_environ(Settings()) == {name: {} for name in PROCESSES}
