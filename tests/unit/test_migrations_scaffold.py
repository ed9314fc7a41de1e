"""A new script has a number, its parts, and a line in ``migrations.sum``."""

from pathlib import Path

import pytest

from compliance.datamap.model import load_data_map
from compliance.errors import MigrationError, RejectedError, RevisionDuplicate
from compliance.settings import DATA_MAP
from migrations.discovery import discover
from migrations.governance import lint
from migrations.graph import build_graph
from migrations.linting import read_folder
from migrations.revision import Phase
from migrations.scaffold import write_script
from migrations.sums import check_sum

GOOD = '"""Do it."""\n\n\ndef up(ctx):\n    pass\n\n\ndef down(ctx):\n    pass\n'


@pytest.mark.parametrize("phase", list(Phase))
def test_a_new_script_is_in_order_and_fails_until_it_is_written(phase: Phase, tmp_path: Path) -> None:
    path = write_script(tmp_path, "subscription_type", phase)
    (revision,) = discover(tmp_path)

    assert path.name == f"v001_{phase.name.lower()}_subscription_type.py"
    assert revision.summary == "Subscription type: say here what changes, and why."
    assert revision.depends_on is None
    assert check_sum(tmp_path, [revision])
    for change in (revision.up, revision.down):
        with pytest.raises(NotImplementedError):
            change(None)  # type: ignore[misc,arg-type]


def findings(folder: Path) -> list[tuple[str, int]]:
    """The rules that find something, each with its line."""
    return [(found.rule, found.line) for found in lint(read_folder(folder), data_map=load_data_map(DATA_MAP))]


@pytest.mark.parametrize("phase", list(Phase))
def test_the_rules_find_each_part_of_a_new_script_that_is_not_written(phase: Phase, tmp_path: Path) -> None:
    path = write_script(tmp_path, "subscription_type", phase)
    lines = path.read_text().splitlines()

    assert findings(tmp_path) == [
        ("MX003", 1),
        ("MX005", 1 + lines.index('OWNER = "the team that answers for it"')),
        ("MX006", 1 + lines.index('REVIEWED_BY = "who has looked at it"')),
        ("MX023", 1 + lines.index("def up(ctx: Context) -> None:")),
        ("MX023", 1 + lines.index("def down(ctx: Context) -> None:")),
    ]


@pytest.mark.parametrize("phase", list(Phase))
def test_a_new_script_that_is_written_passes_every_rule(phase: Phase, tmp_path: Path) -> None:
    path = write_script(tmp_path, "subscription_type", phase)
    written = {
        "say here what changes, and why.": "which of three the person has.",
        "the team that answers for it": "subscriptions",
        "who has looked at it": "platform",
        "raise NotImplementedError": 'ctx.report("here")',
    }
    for old, new in written.items():
        path.write_text(path.read_text().replace(old, new))

    assert findings(tmp_path) == []


def test_numbers_go_on_behind_the_last(tmp_path: Path) -> None:
    (tmp_path / "v007_post_a.py").write_text(GOOD)
    write_script(tmp_path, "b", Phase.PRE)
    write_script(tmp_path, "c", Phase.DATA)

    assert [one.name for one in discover(tmp_path)] == ["v007_post_a", "v008_pre_b", "v009_data_c"]
    assert [one.depends_on for one in discover(tmp_path)] == [None, None, None]


def test_a_new_script_merges_the_branches(tmp_path: Path) -> None:
    (tmp_path / "v001_pre_a.py").write_text(GOOD)
    for name in ("v002_pre_b", "v003_pre_c"):
        (tmp_path / f"{name}.py").write_text(GOOD + '\nDEPENDS_ON = ("v001_pre_a",)\n')

    write_script(tmp_path, "merge", Phase.DATA)

    *_, merge = discover(tmp_path)
    assert merge.depends_on == ("v002_pre_b", "v003_pre_c")
    assert [head.name for head in build_graph(discover(tmp_path)).heads()] == ["v004_data_merge"]


@pytest.mark.parametrize("slug", ["", "A", "1a", "a-b", "a b", "../a", "a.py"])
def test_a_slug_that_is_no_part_of_a_name_is_refused(slug: str, tmp_path: Path) -> None:
    with pytest.raises(RejectedError, match="is no slug: write a few words in lower case"):
        write_script(tmp_path, slug, Phase.DATA)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_in_order_takes_no_new_script(tmp_path: Path) -> None:
    for name in ("v001_pre_a", "v001_pre_b"):
        (tmp_path / f"{name}.py").write_text(GOOD)

    with pytest.raises(RevisionDuplicate):
        write_script(tmp_path, "c", Phase.DATA)


def test_a_full_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "v999_pre_a.py").write_text(GOOD)

    with pytest.raises(MigrationError, match="number 999 is taken"):
        write_script(tmp_path, "c", Phase.DATA)
