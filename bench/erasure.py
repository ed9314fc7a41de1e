"""What an erasure costs: ``python -m bench.erasure all`` (``--help`` for parts); wants a quiet machine."""

import argparse
from collections.abc import Callable

from bench.erasure_foreground import foreground
from bench.erasure_subject import memory, subject
from bench.erasure_sweep import sweep_speed
from bench.harness import Verdicts

PARTS: dict[str, tuple[str, Callable[[argparse.Namespace], Verdicts]]] = {
    "subject": ("one person beside bare deletes", lambda given: subject(given.documents, given.rounds)),
    "sweep": ("the search of a collection beside a raw scan", lambda given: sweep_speed(given.documents, given.rounds)),
    "foreground": (
        "reads and writes of an application beside an erasure, and idle",
        lambda given: foreground(given.documents, given.rounds, given.rate),
    ),
    "memory": ("the peak memory of a worker", lambda given: memory(10 * given.documents)),
}
ALL = "all"


def main() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m bench.erasure", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in {**{name: what for name, (what, _) in PARTS.items()}, ALL: "everything"}.items():
        part = commands.add_parser(name, help=what, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        part.add_argument(
            "--documents", type=int, default=100_000, help="of one person; memory takes ten times as many"
        )
        part.add_argument("--rounds", type=int, default=3, help="how often each contender has its turn")
        part.add_argument("--rate", type=float, default=100, help="operations a second of the application")
    given = parser.parse_args()
    whole = Verdicts()
    for name in PARTS if given.command == ALL else [given.command]:
        _, measure = PARTS[name]
        whole.missed += measure(given).missed
    whole.end()


if __name__ == "__main__":
    main()
