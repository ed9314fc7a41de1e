"""Examples of scripts: what a rule is about, and what it asks for instead. They are shown to people, and tested."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from migrations.governance.catalogue import Catalogue, Collection, Sighting

STAYS = 'ctx.report("values stay as they are")'


@dataclass(frozen=True, slots=True)
class Sample:
    """A script, the scripts that stand before it, and the database it is for."""

    file: str
    source: str
    before: tuple["Sample", ...] = ()
    catalogue: Catalogue | None = None

    def after(self, *before: "Sample") -> "Sample":
        """Return it with other scripts before it in the folder."""
        return replace(self, before=before)

    def on(self, collections: Mapping[str, Collection]) -> "Sample":
        """Return it for a database that holds *collections*."""
        return replace(self, catalogue=Catalogue(collections))

    def seen(self, *steps: Sighting) -> "Sample":
        """Return it for a database on which a dry run saw *steps* of it."""
        return replace(self, catalogue=Catalogue({"albums": Collection()}, {self.file: steps}))


def pre(up: str, down: str = STAYS, *, top: str = "", number: int = 10) -> Sample:
    """Return a script of the phase ``pre`` whose ``up`` is *up*, with *top* above its functions."""
    return _script("pre", up, down, top, number)


def data(up: str, down: str = STAYS, *, top: str = "", number: int = 10) -> Sample:
    """Return a script of the phase ``data``."""
    return _script("data", up, down, top, number)


def post(up: str, down: str = STAYS, *, top: str = "", number: int = 10) -> Sample:
    """Return a script of the phase ``post``."""
    return _script("post", up, down, top, number)


def _script(phase: str, up: str, down: str, top: str, number: int) -> Sample:
    constants = 'OWNER = "catalogue"\nREVIEWED_BY = "platform"'
    parts = [
        '"""Change what this example is about."""',
        *(
            [f"{top}\n\n{constants}" if top.startswith(("import", "from")) else f"{constants}\n\n\n{top}"]
            if top
            else [constants]
        ),
        "",
        f"def up(ctx):\n{_indent(up)}",
        "",
        f"def down(ctx):\n{_indent(down)}",
    ]
    return Sample(f"v{number:03d}_{phase}_example.py", "\n\n".join(part.strip("\n") for part in parts if part) + "\n")


def _indent(lines: str) -> str:
    return "\n".join(f"    {line}" for line in lines.strip("\n").splitlines())
