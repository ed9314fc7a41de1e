"""The installed command as a process of its own, forked from one that has imported it: most of its time is imports.

The first command of a test process starts the one that is forked; it ends when the test process does.
"""

import atexit
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

Completed = subprocess.CompletedProcess[str]
LIMIT_SECONDS = 60
LENGTH = struct.Struct("!I")
CHANNEL = 3  # the file descriptor by which the process that is forked takes orders


def run_command(arguments: Sequence[str], environ: Mapping[str, str], folder: Path) -> Completed:
    """Run ``compliance`` with *arguments*, in *folder*; return how it ended and what it printed.

    Raises:
        TimeoutError: When it has not ended in time; it is left to the end of the test process.
    """
    order = {"arguments": list(arguments), "environ": dict(environ), "folder": str(folder)}
    ours, theirs = socket.socketpair()
    with TemporaryFile() as stdout, TemporaryFile() as stderr, closing(ours):
        with closing(theirs):
            files = [theirs.fileno(), stdout.fileno(), stderr.fileno()]
            socket.send_fds(_channel(), [b"!"], files)
        ours.settimeout(LIMIT_SECONDS)
        content = json.dumps(order).encode()
        ours.sendall(LENGTH.pack(len(content)) + content)
        (code,) = struct.unpack("!i", _read(ours, 4))
        printed = [_content(file) for file in (stdout, stderr)]
    return subprocess.CompletedProcess(["compliance", *arguments], code, *printed)


@cache
def _channel() -> socket.socket:
    ours, theirs = socket.socketpair()
    with closing(theirs):
        script = f"import os; os.dup2({theirs.fileno()}, {CHANNEL}); import preloaded; preloaded.serve()"
        process = subprocess.Popen(
            [sys.executable, "-c", script],
            env={"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(sys.path)},
            pass_fds=[theirs.fileno()],
        )
    atexit.register(_end, process, ours)
    return ours


def _end(process: "subprocess.Popen[bytes]", channel: socket.socket) -> None:
    channel.close()
    process.wait(LIMIT_SECONDS)


def serve() -> None:
    """Carry out orders until there can be none any more."""
    from worker.main import main  # noqa: PLC0415 - what this process is for

    channel = socket.socket(fileno=CHANNEL)
    while True:
        message, files, _, _ = socket.recv_fds(channel, 1, 3)
        if not message:
            return
        if os.fork() == 0:
            channel.close()
            _carry_out(files, main)
        for file in files:
            os.close(file)
        _reap()


def _carry_out(files: Sequence[int], main: Any) -> None:
    """Run one command in a child, and say how it ended."""
    answers = socket.socket(fileno=files[0])
    order = json.loads(_read(answers, *LENGTH.unpack(_read(answers, LENGTH.size))))
    child = os.fork()
    if child == 0:
        answers.close()
        _become(order, files[1:])
        main()
        sys.exit()
    _, status = os.waitpid(child, 0)
    answers.sendall(struct.pack("!i", os.waitstatus_to_exitcode(status)))
    os._exit(0)


def _become(order: Mapping[str, Any], outputs: Sequence[int]) -> None:
    os.chdir(order["folder"])
    os.environ.clear()  # noqa: TID251 - as if it had been started with its own
    os.environ.update(order["environ"])  # noqa: TID251
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in zip((nothing, *outputs), (0, 1, 2), strict=True):
        os.dup2(source, target)
    sys.argv = ["compliance", *order["arguments"]]


def _reap() -> None:
    """Let those go that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        return


def _read(connection: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        more = connection.recv(size - len(content))
        assert more, "the process ended without an answer"
        content += more
    return content


def _content(file: Any) -> str:
    file.seek(0)
    return str(file.read().decode())
