"""Shared libraries that a server program lacks, and the command that brings them; pure."""

import re
from collections.abc import Iterable, Mapping

# library -> (Debian family, Red Hat family)
PACKAGES = {
    "libcurl.so.4": ("libcurl4", "libcurl"),
    "libssl.so.3": ("libssl3", "openssl-libs"),
    "libcrypto.so.3": ("libssl3", "openssl-libs"),
    "liblzma.so.5": ("liblzma5", "xz-libs"),
    "libgcc_s.so.1": ("libgcc-s1", "libgcc"),
}
# Renamed when Debian moved to 64-bit time_t.
RENAMED = {"libcurl4": "libcurl4t64", "libssl3": "libssl3t64"}
RENAMED_SINCE = {"debian": 13.0, "ubuntu": 24.04}
RED_HAT = {"fedora", "rhel", "centos"}


def missing_libraries(ldd_output: str) -> tuple[str, ...]:
    """Return the libraries and the library versions (``GLIBC_2.34``) that ``ldd`` did not find, each once."""
    libraries = re.findall(r"^\s*(\S+) => not found", ldd_output, re.MULTILINE)
    versions = re.findall(r"version [`']([^']+)' not found", ldd_output)
    return tuple(dict.fromkeys([*libraries, *versions]))


def install_command(missing: Iterable[str], os_release: Mapping[str, str]) -> str | None:
    """Return the command that installs *missing*, or None where no package of this system brings all of them."""
    family = _family(os_release)
    if family is None:
        return None
    packages: dict[str, None] = {}
    for library in missing:
        names = PACKAGES.get(library)
        if names is None:
            return None
        packages[_debian_name(names[0], os_release) if family == "debian" else names[1]] = None
    tool = "apt-get" if family == "debian" else "dnf"
    return f"{tool} install -y {' '.join(packages)}"


def explain_missing(program: str, missing: Iterable[str], os_release: Mapping[str, str], *, ways_out: str) -> str:
    """Return the one sentence that tells the user what *program* lacks and what to do."""
    names = tuple(missing)
    command = install_command(names, os_release)
    if command is not None:
        return f"{program} needs {', '.join(names)}, which this system lacks; run `{command}` as root"
    system = os_release.get("PRETTY_NAME", "this system")
    return f"{program} needs {', '.join(names)}, which {system} does not have: {ways_out}"


def _family(os_release: Mapping[str, str]) -> str | None:
    names = {os_release.get("ID", ""), *os_release.get("ID_LIKE", "").split()}
    if names & {"debian", "ubuntu"}:
        return "debian"
    return "redhat" if names & RED_HAT else None


def _debian_name(package: str, os_release: Mapping[str, str]) -> str:
    since = RENAMED_SINCE.get(os_release.get("ID", ""))
    try:
        version = float(os_release.get("VERSION_ID", ""))
    except ValueError:
        return package
    return RENAMED.get(package, package) if since is not None and version >= since else package
