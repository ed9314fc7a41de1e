"""Every file of a migrations folder is a script that can run, or an error that names it."""

import inspect
from pathlib import Path

import pytest

from compliance.errors import MigrationError, RevisionDuplicate
from compliance.settings import MIGRATIONS
from migrations.discovery import discover
from migrations.revision import Phase, checksum

GOOD = '"""Do it.\n\nAnd more."""\n\n\ndef up(ctx):\n    pass\n\n\ndef down(ctx):\n    pass\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "__init__.py").write_text("")
    return tmp_path


def script(folder: Path, content: str = GOOD, name: str = "v001_pre_first.py") -> None:
    (folder / name).write_text(content)


def test_scripts_come_by_number_then_phase(folder: Path) -> None:
    for name in ("v010_pre_d", "v002_post_c", "v002_pre_a", "v002_data_b"):
        script(folder, name=f"{name}.py")

    revisions = discover(folder)

    assert [revision.name for revision in revisions] == ["v002_pre_a", "v002_data_b", "v002_post_c", "v010_pre_d"]
    assert [revision.phase for revision in revisions] == [Phase.PRE, Phase.DATA, Phase.POST, Phase.PRE]
    assert {revision.summary for revision in revisions} == {"Do it."}


def test_an_empty_folder_holds_no_revisions(folder: Path) -> None:
    assert discover(folder) == ()


def test_a_missing_folder_is_named_by_its_variable(tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match="nowhere does not exist; set COMPLIANCE_MIGRATIONS"):
        discover(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "name",
    ["001_pre_a.py", "v1_pre_a.py", "v0001_pre_a.py", "v001_a.py", "v001_later_a.py", "v001_pre_A.py", "V001_pre_a.py",
     "v001-pre-a.py", "v001_pre_.py", "v001_pre_1.py", "helpers.py", "v001_pre_a b.py", "v\u0660\u0660\u0661_pre_a.py"],
)  # fmt: skip
def test_a_file_that_is_named_otherwise_is_refused_and_not_skipped(name: str, folder: Path) -> None:
    script(folder)
    script(folder, name=name)

    with pytest.raises(MigrationError, match="name migration scripts vNNN_"):
        discover(folder)


def test_two_scripts_of_one_number_and_phase_are_refused(folder: Path) -> None:
    script(folder, name="v001_pre_a.py")
    script(folder, name="v001_pre_b.py")

    with pytest.raises(RevisionDuplicate, match="v001_pre_a and v001_pre_b have the same number and phase; renumber"):
        discover(folder)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (GOOD.replace('"""Do it.\n\nAnd more."""', ""), "begin with a docstring"),
        (GOOD.replace("Do it.\n\nAnd more.", "  "), "begin with a docstring"),
        (GOOD.replace("up(ctx)", "upwards(ctx)"), r"define up\(ctx\)"),
        (GOOD.replace("down(ctx)", "back(ctx)"), r'define down\(ctx\), or IRREVERSIBLE = "why", not both'),
        (GOOD + '\nIRREVERSIBLE = "no"\n', r"define down\(ctx\), or IRREVERSIBLE"),
        (GOOD.replace("down(ctx)", "back(ctx)") + '\nIRREVERSIBLE = ""\n', r"define down\(ctx\), or IRREVERSIBLE"),
        ("def up(:\n", "not valid Python: line 1"),
        ("def up(ctx):\npass\n", "not valid Python: line 2"),
        ('"""never closed\n', "not valid Python: line 1"),
        ("x = (\n", "not valid Python: line 1"),
        ("a = 1\x00\n", "not valid Python"),
        (GOOD.replace("down(ctx)", "back(ctx)") + '\nIRREVERSIBLE = "  "\n', 'IRREVERSIBLE = "why" as one literal'),
        (GOOD.replace("down(ctx)", "back(ctx)") + '\nIRREVERSIBLE = "a".upper()\n', "as one literal text"),
        (GOOD + '\nDEPENDS_ON = "v000_pre_a"\n', r"write DEPENDS_ON as a tuple of names: DEPENDS_ON = \("),
        (GOOD + "\nDEPENDS_ON = (1,)\n", "write DEPENDS_ON as a tuple"),
        (GOOD + "\nDEPENDS_ON = tuple('a')\n", "write DEPENDS_ON as a tuple"),
    ],
)
def test_a_script_that_cannot_run_is_refused_by_name(content: str, fault: str, folder: Path) -> None:
    script(folder, content)

    with pytest.raises(MigrationError, match=rf"^v001_pre_first\.py: .*{fault}"):
        discover(folder)


def test_a_script_that_cannot_be_loaded_is_refused_by_name_when_it_is_to_run(folder: Path) -> None:
    script(folder, GOOD + "raise RuntimeError('ann@x.org')\n")
    (revision,) = discover(folder)

    for _ in range(2):
        with pytest.raises(MigrationError, match=r"^v001_pre_first\.py: fails while it is loaded \(RuntimeError\)$"):
            revision.load()


def test_the_text_of_its_functions_is_the_one_that_was_read(folder: Path) -> None:
    script(folder)
    (revision,) = discover(folder)
    up = revision.up
    script(folder, "# another\n" * 20)

    assert inspect.getsource(up) == "def up(ctx):\n    pass\n"


def test_what_was_read_runs_even_when_the_file_is_another_by_then(folder: Path) -> None:
    script(folder, GOOD.replace("pass", "return 'read'", 1))
    (revision,) = discover(folder)
    script(folder, GOOD.replace("pass", "return 'written later'", 1))

    assert revision.up(None) == "read"  # type: ignore[arg-type,func-returns-value]
    assert revision.up is revision.up
    assert revision.down is not None
    assert b"return 'read'" in revision.source


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("", None),
        ("DEPENDS_ON = ()", ()),
        ('DEPENDS_ON = ("v001_pre_a",)', ("v001_pre_a",)),
        ('DEPENDS_ON: tuple[str, ...] = ("v001_pre_b", "v001_pre_a")', ("v001_pre_b", "v001_pre_a")),
        ('DEPENDS_ON = ["v001_pre_b", "v001_pre_b"]', ("v001_pre_b",)),
        ('DEPENDS_ON = ()\nDEPENDS_ON = ("v001_pre_a",)', ("v001_pre_a",)),
        ('OTHER = ("v001_pre_a",)', None),
    ],
)
def test_a_script_says_what_it_depends_on(line: str, names: tuple[str, ...] | None, folder: Path) -> None:
    script(folder, f"{GOOD}\n{line}\n", name="v002_pre_b.py")

    assert [revision.depends_on for revision in discover(folder)] == [names]


def test_a_script_that_is_not_utf_8_is_refused_by_name(folder: Path) -> None:
    (folder / "v001_pre_first.py").write_bytes(b"x = '\xff'\n")

    with pytest.raises(MigrationError, match=r"^v001_pre_first\.py: not valid Python: not UTF-8"):
        discover(folder)


@pytest.mark.parametrize(
    ("line", "module"),
    [
        ("import os", "os"),
        ("import bson, requests", "requests"),
        ("from worker.app import app", "worker.app"),
        ("from compliance.mongo import Databases", "compliance.mongo"),
        ("from migrations import runner", "migrations"),
        ("from migrations.contexts import x", "migrations.contexts"),
        ("from . import x", r"\."),
        ("from .re import x", r"\.re"),
        ("import collectionsx", "collectionsx"),
        ("def f():\n    import random", "random"),
        ("class F:\n    async def f():\n        with f:\n            import random", "random"),
        ("try:\n    pass\nexcept ImportError:\n    import random", "random"),
        ("try:\n    pass\nfinally:\n    import random", "random"),
        ("for _ in ():\n    pass\nelse:\n    import random", "random"),
        ("match 1:\n    case 1:\n        import random", "random"),
    ],
)
def test_an_import_beyond_the_migration_interface_is_refused(line: str, module: str, folder: Path) -> None:
    script(folder, f"{GOOD}\n{line}\n")

    with pytest.raises(MigrationError, match=rf"v001_pre_first\.py: imports {module}; a migration script may import"):
        discover(folder)


def test_imports_that_only_compute_are_allowed(folder: Path) -> None:
    imports = "import re\nimport typing as t\nfrom collections.abc import Mapping\nfrom bson import ObjectId\n"
    script(folder, f"{GOOD}\n{imports}from migrations.context import Context\n")

    assert len(discover(folder)) == 1


def test_an_irreversible_script_says_why(folder: Path) -> None:
    script(folder, '"""Do it."""\nIRREVERSIBLE = "data is gone"\ndef up(ctx): pass\n')

    (revision,) = discover(folder)

    assert (revision.down, revision.irreversible) == (None, "data is gone")


CODE = """
def up(ctx):
    if ctx.drop_data:
        ctx.report("a")
    ctx.report('b')
    x = [1, 2]
    x = 1
    -1
"""


@pytest.mark.parametrize(
    "changed",
    [
        CODE.replace("    ctx.report('b')", "    # why\n    ctx.report('b')  # and how"),
        CODE.replace("'b'", '"b"'),
        CODE.replace("[1, 2]", "[\n        1,\n        2,\n    ]"),
        CODE.replace("    ", "\t"),
        CODE.replace("\n", "\r\n"),
        CODE.replace("[1, 2]", "([1, 2])") + "\n\n\n",
    ],
)
def test_comments_and_formatting_are_free(changed: str) -> None:
    assert checksum(changed) == checksum(CODE)


@pytest.mark.parametrize(
    "changed",
    [
        CODE.replace("'b'", "'c'"),
        CODE.replace("    ctx.report('b')", "        ctx.report('b')"),
        CODE.replace("x = 1\n    -1", "x = 1 -1"),
        CODE.replace("[1, 2]", "(1, 2)"),
        CODE.replace("[1, 2]", "[1, 2.0]"),
        CODE.replace("[1, 2]", "[1, None]"),
        CODE.replace("'b'", "b'b'"),
        CODE.replace("'b'", "f'{b}'"),
        CODE.replace("up(ctx)", "up(ctx, x=None)"),
        CODE + "y = 1\n",
    ],
)
def test_any_change_of_code_is_another_checksum(changed: str) -> None:
    assert checksum(changed) != checksum(CODE)


def test_the_checksum_of_a_script_stays_from_release_to_release() -> None:
    # Recorded by version 0.1: another value here means that every applied migration would count as edited.
    assert checksum(CODE) == "d548dfc15aee2b4dd6c2470ca4a051aa46c0e513b32d0fac9ac5cd80f678467d"


def test_the_reference_domain_is_found() -> None:
    assert [revision.name for revision in discover(MIGRATIONS)][:2] == [
        "v000_pre_foundation",
        "v001_pre_core_collections",
    ]
