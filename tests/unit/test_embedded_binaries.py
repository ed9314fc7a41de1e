"""Which server program runs, and what the user reads when none can."""

from pathlib import Path

import pytest

from compliance.errors import ConfigurationError
from worker.embedded import binaries
from worker.embedded.binaries import (
    MONGOD_WAYS_OUT,
    find_mongod,
    find_valkey,
    is_recent_mongod,
    make_executable,
    valkey_platform,
)
from worker.embedded.libraries import explain_missing, install_command, missing_libraries

LDD = """\
	linux-vdso.so.1 (0x00007ffd)
	libcurl.so.4 => not found
	liblzma.so.5 => /lib/x86_64-linux-gnu/liblzma.so.5 (0x00007f01)
	libcrypto.so.3 => not found
	libcurl.so.4 => not found
	libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f00)
"""
LDD_OLD_GLIBC = """\
/opt/mongod: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.34' not found (required by /opt/mongod)
	libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f00)
"""
DEBIAN_12 = {"ID": "debian", "VERSION_ID": "12"}
DEBIAN_13 = {"ID": "debian", "VERSION_ID": "13"}
DEBIAN_TESTING = {"ID": "debian"}
UBUNTU_22 = {"ID": "ubuntu", "VERSION_ID": "22.04", "ID_LIKE": "debian"}
UBUNTU_24 = {"ID": "ubuntu", "VERSION_ID": "24.04", "ID_LIKE": "debian"}
ROCKY_9 = {"ID": "rocky", "VERSION_ID": "9.4", "ID_LIKE": "rhel centos fedora"}
ALPINE = {"ID": "alpine", "VERSION_ID": "3.20", "PRETTY_NAME": "Alpine Linux v3.20"}


def program(path: Path, *, output: str = "") -> Path:
    path.write_text(f"#!/bin/sh\necho '{output}'\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def empty_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_each_missing_library_is_found_once() -> None:
    assert missing_libraries(LDD) == ("libcurl.so.4", "libcrypto.so.3")


def test_a_system_that_is_too_old_lacks_a_version() -> None:
    assert missing_libraries(LDD_OLD_GLIBC) == ("GLIBC_2.34",)


def test_nothing_is_missing_where_everything_was_found() -> None:
    assert missing_libraries("\tlibc.so.6 => /lib/libc.so.6 (0x0)\n\tnot a dynamic executable\n") == ()


@pytest.mark.parametrize(
    ("system", "command"),
    [
        (DEBIAN_12, "apt-get install -y libcurl4"),
        (DEBIAN_13, "apt-get install -y libcurl4t64"),
        (DEBIAN_TESTING, "apt-get install -y libcurl4"),
        (UBUNTU_22, "apt-get install -y libcurl4"),
        (UBUNTU_24, "apt-get install -y libcurl4t64"),
        (ROCKY_9, "dnf install -y libcurl"),
        (ALPINE, None),
        ({}, None),
    ],
)
def test_the_command_fits_the_system(system: dict[str, str], command: str | None) -> None:
    assert install_command(["libcurl.so.4"], system) == command


def test_one_command_brings_all_libraries_and_no_package_twice() -> None:
    missing = ["libcurl.so.4", "libssl.so.3", "libcrypto.so.3"]

    assert install_command(missing, DEBIAN_12) == "apt-get install -y libcurl4 libssl3"


def test_what_a_known_system_lacks_is_named_with_its_command() -> None:
    message = explain_missing("mongod", ["libcurl.so.4"], DEBIAN_12, ways_out=MONGOD_WAYS_OUT)

    assert message == ("mongod needs libcurl.so.4, which this system lacks; run `apt-get install -y libcurl4` as root")


@pytest.mark.parametrize(("missing", "system"), [("GLIBC_2.34", DEBIAN_12), ("libcurl.so.4", ALPINE)])
def test_what_no_package_brings_names_the_ways_out(missing: str, system: dict[str, str]) -> None:
    message = explain_missing("mongod", [missing], system, ways_out=MONGOD_WAYS_OUT)

    assert missing in message
    assert all(way in message for way in ("MONGODB_URI", "on the PATH"))


@pytest.mark.parametrize(
    ("output", "recent"),
    [
        ("db version v6.0.5\nBuild Info: {}", True),
        ("db version v8.0.0", True),
        ("db version v4.4.29", False),
        ("", False),
    ],
)
def test_a_mongod_older_than_5_is_not_used(output: str, *, recent: bool) -> None:
    assert is_recent_mongod(output) is recent


@pytest.mark.parametrize(
    ("system", "machine", "folder"),
    [
        ("Linux", "x86_64", "linux-x86_64"),
        ("Linux", "AMD64", "linux-x86_64"),
        ("Linux", "arm64", "linux-aarch64"),
        ("Darwin", "arm64", "darwin-arm64"),
    ],
)
def test_the_folder_of_the_wheel_follows_the_platform(system: str, machine: str, folder: str) -> None:
    assert valkey_platform(system, machine) == folder


def test_the_program_that_was_named_goes_before_the_path(empty_path: Path, tmp_path: Path) -> None:
    program(empty_path / "mongod", output="db version v8.0.0")
    mine = program(tmp_path / "mine")

    assert find_mongod(mine) == mine


def test_a_named_program_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"COMPLIANCE_MONGOD names .*nowhere"):
        find_mongod(tmp_path / "nowhere")


def test_programs_on_the_path_go_before_the_wheels(empty_path: Path) -> None:
    mongod = program(empty_path / "mongod", output="db version v8.0.0")
    redis = program(empty_path / "redis-server")

    assert (find_mongod(None), find_valkey()) == (mongod, redis)


def test_an_old_mongod_on_the_path_gives_way_to_the_wheel(empty_path: Path) -> None:
    old = program(empty_path / "mongod", output="db version v4.4.29")

    assert find_mongod(None) != old


def test_without_wheel_and_path_the_error_names_the_ways_out(empty_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "find_spec", lambda _: None)

    with pytest.raises(ConfigurationError, match=r"MONGODB_URI.* on the PATH"):
        find_mongod(None)
    with pytest.raises(ConfigurationError, match=r"REDIS_URL.* on the PATH"):
        find_valkey()


def test_a_missing_library_stops_the_start_before_the_server(empty_path: Path, tmp_path: Path) -> None:
    program(empty_path / "ldd", output="libcurl.so.4 => not found")
    mine = program(tmp_path / "mongod")

    with pytest.raises(ConfigurationError, match=r"mongod needs libcurl\.so\.4"):
        find_mongod(mine)


def test_a_program_without_its_run_bit_gets_it(tmp_path: Path) -> None:
    path = program(tmp_path / "mongod")
    path.chmod(0o644)

    assert make_executable(path).stat().st_mode & 0o111 == 0o111


def test_a_run_bit_that_may_not_be_set_is_an_error_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = program(tmp_path / "mongod")
    path.chmod(0o644)

    def refuse(self: Path, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)

    with pytest.raises(ConfigurationError, match="run `chmod \\+x "):
        make_executable(path)
