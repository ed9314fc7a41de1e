"""The process of ``nursery``: forks one attempt for each JSON line on stdin, and tells on stdout how it ended."""

import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import fields
from threading import Lock
from typing import Any

from counting import message
from nursery import FAILED, KILL, REACHED, STARTED, STEP_DOWN, STOP, SUCCEEDED, UNTOUCHED, End, Fault
from pymongo.errors import PyMongoError
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent, register

from compliance.jobs.job import Ask
from compliance.jobs.ledger import Claim, Ledger
from compliance.mongo import Session, open_client
from compliance.roles import Role
from compliance.settings import load_settings
from worker.addresses import Addresses
from worker.intake import Message, receive
from worker.services import Services, build_services
from worker.tasks import JOBS
from worker.telemetry import configure_logging


class Fateful(CommandListener):
    """Meets the fault of this process at its n-th command."""

    def __init__(self, fault: Fault, admin_uri: str | None) -> None:
        self.was_reached = False
        self._fault = fault
        self._admin_uri = admin_uri
        self._lock = Lock()
        self._sent = 0
        self._awaited: int | None = None
        self._is_quiet = False

    def started(self, event: CommandStartedEvent) -> None:
        if self._is_quiet or self._fault.only not in {None, event.command_name}:
            return
        with self._lock:
            self._sent += 1
            is_it = self._sent == self._fault.at
        if is_it and self._fault.moment == STARTED:
            self._meet()
        elif is_it:
            self._awaited = event.request_id

    def succeeded(self, event: CommandSucceededEvent) -> None:
        self._answered(event.request_id)

    def failed(self, event: CommandFailedEvent) -> None:
        self._answered(event.request_id)

    def _answered(self, request_id: int) -> None:
        if self._fault.moment == SUCCEEDED and request_id == self._awaited:
            self._awaited = None
            self._meet()

    def _meet(self) -> None:
        self.was_reached = True
        match self._fault.fate:
            case fate if fate == KILL:
                os.kill(os.getpid(), signal.SIGKILL)
            case fate if fate == STOP:
                os.kill(os.getpid(), signal.SIGSTOP)
            case fate if fate == STEP_DOWN:
                self._step_down()

    def _step_down(self) -> None:
        assert self._admin_uri is not None
        self._is_quiet = True
        try:
            with open_client(self._admin_uri, app_name="test") as client:
                client.admin.command({"replSetStepDown": 2, "secondaryCatchUpPeriodSecs": 1, "force": True})
        except PyMongoError:  # some primary was stepping down already
            pass
        finally:
            self._is_quiet = False


class UnfencedLedger(Ledger):
    """A ledger that compares nothing: what the tests of the fence must notice."""

    def advance(self, claim: Claim, changes: Mapping[str, Any], *, session: Session, heard: Ask | None = None) -> None:
        del heard
        self.jobs.update_one({"_id": claim.job.request_id}, {"$set": dict(changes)}, session=session)


class UnfencedServices(Services):
    """Services of a worker that compares nothing."""

    @property
    def ledger(self) -> Ledger:
        return UnfencedLedger(self.databases)


def main() -> None:
    configure_logging("ERROR")  # to stderr
    environ = dict(os.environ)  # noqa: TID251 - the composition root of this process
    for line in sys.stdin:
        asked = json.loads(line)
        if "wake" in asked:
            pid = asked["wake"]
            os.kill(pid, signal.SIGCONT)
        else:
            pid = os.fork()
            if pid == 0:
                os._exit(attempt(message_of(**asked["message"]), Fault(**asked["fault"]), environ))
        end = wait(pid)
        sys.stdout.write(json.dumps({field.name: getattr(end, field.name) for field in fields(end)}) + "\n")
        sys.stdout.flush()


def message_of(**asked: Any) -> Message:
    """Return a message that asks to count, or one of a *task* that there is."""
    if "task" not in asked:
        return message(**asked)
    return Message(kind=JOBS[asked["task"]], values=asked["values"], request_id=asked["request_id"])


def wait(pid: int) -> End:
    """Wait until the attempt *pid* ended or was stopped."""
    _, status = os.waitpid(pid, os.WUNTRACED)
    return End(pid=pid, exit_code=None if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status))


def attempt(asked: Message, fault: Fault, environ: Mapping[str, str]) -> int:
    """Take the message *asked* once, as a worker that meets *fault*; return the exit code."""
    fate = Fateful(fault, environ.get("TEST_ADMIN_URI"))
    register(fate)
    services = build_services(Addresses(load_settings(environ)), Role.WORKER, publish=lambda _: None)
    if not fault.is_fenced:
        services = UnfencedServices(**{field.name: getattr(services, field.name) for field in fields(services)})
    try:
        receive(asked, services=services)
    except Exception as error:  # noqa: BLE001 - told by the exit code
        sys.stderr.write(f"{asked.request_id}: {type(error).__name__}: {error}\n")
        return FAILED
    return REACHED if fate.was_reached else UNTOUCHED


if __name__ == "__main__":
    main()
