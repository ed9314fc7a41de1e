"""Revisions and histories without files and servers."""

from hypothesis import strategies as st

from migrations.past import Past, fold
from migrations.revision import Code, Revision, parse_name


def revision(name: str, *depends_on: str, irreversible: str | None = None, is_root: bool = False) -> Revision:
    _, number, phase = parse_name(f"{name}.py")
    return Revision(
        name=name,
        number=number,
        phase=phase,
        summary="",
        checksum=f"sum of {name}",
        irreversible=irreversible,
        depends_on=depends_on if depends_on or is_root else None,
        source=name.encode(),
        load=lambda: Code(up=lambda _: None, down=lambda _: None),
    )


def past(*applied: str, **marks: str) -> Past:
    """What is left when *applied* were applied, and each of *marks* came as far as its value says."""
    events = dict.fromkeys(applied, "applied") | marks
    return fold(
        {"revision": name, "event": event, "checksum": f"sum of {name}", "by": "test", "at": None}
        for name, event in events.items()
    )


@st.composite
def folders(draw: st.DrawFn, *, most: int = 9) -> tuple[Revision, ...]:
    """Folders without a circle: whatever a script depends on comes before it in one order that is drawn, too."""
    keys = st.tuples(st.integers(0, 20), st.sampled_from(["pre", "data", "post"]))
    drawn = draw(st.sets(keys, min_size=1, max_size=most))
    numbered = sorted(drawn, key=lambda key: (key[0], ("pre", "data", "post").index(key[1])))
    names = [f"v{number:03d}_{phase}_x" for number, phase in numbered]
    order = sorted(draw(st.permutations(names)), key=lambda name: not name.startswith("v000"))
    found: list[Revision] = []
    for before, name in zip([None, *names], names, strict=False):
        earlier = order[: order.index(name)]
        hows = ["root", "graph", *(["line"] if before in (None, *earlier) else [])]
        how = draw(st.sampled_from(hows))
        parents = draw(st.sets(st.sampled_from(earlier), max_size=3)) if how == "graph" and earlier else set()
        found.append(revision(name, *sorted(parents), is_root=how != "line"))
    return tuple(draw(st.permutations(found)))
