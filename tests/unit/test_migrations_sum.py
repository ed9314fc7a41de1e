"""``migrations.sum`` names every script, and conflicts where two branches add one."""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from revisions import folders, revision

from compliance.errors import FolderDiffers, MigrationError
from compliance.settings import MIGRATIONS
from migrations.discovery import discover
from migrations.revision import Revision
from migrations.sums import FILE, check_sum, compare, format_sum, parse_sum, write_sum

GOOD = '"""Do it."""\n\n\ndef up(ctx):\n    pass\n\n\ndef down(ctx):\n    pass\n'


def add(folder: Path, name: str, text: str = GOOD) -> None:
    (folder / f"{name}.py").write_text(text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two scripts and their sum."""
    add(tmp_path, "v001_pre_a")
    add(tmp_path, "v002_pre_b", GOOD + "X = 1\n")
    assert write_sum(tmp_path, discover(tmp_path))
    return tmp_path


def check(folder: Path) -> bool:
    return check_sum(folder, discover(folder))


def test_the_sum_of_our_own_folder_is_kept() -> None:
    """Run ``compliance migrate sum`` after a change of a script."""
    assert (MIGRATIONS / FILE).read_text() == format_sum(discover(MIGRATIONS))


def test_a_line_is_a_script_and_the_first_is_the_whole(folder: Path) -> None:
    first, *lines = (folder / FILE).read_text().splitlines()

    assert first.startswith("migrations.sum/v1 ")
    assert lines == [f"{one.name} {one.checksum}" for one in discover(folder)]
    assert check(folder)


def test_the_form_stays_from_release_to_release() -> None:
    # SHA-256 of the bytes "v001_pre_a <64 zeros>\n".
    digest = "15113c445bd97a8401326221eccdfb9bb3b2b54b72585b03bad3df958fe6e49b"

    assert (
        format_sum([_with(revision("v001_pre_a"), "0" * 64)]) == f"migrations.sum/v1 {digest}\nv001_pre_a {'0' * 64}\n"
    )


def test_comments_are_free(folder: Path) -> None:
    add(folder, "v001_pre_a", f"# why\n{GOOD}")

    assert check(folder)


def test_a_folder_without_the_file_says_so(folder: Path) -> None:
    (folder / FILE).unlink()

    assert not check(folder)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda folder: add(folder, "v003_pre_c"), r"\(new: v003_pre_c\)"),
        (lambda folder: add(folder, "v001_pre_a", GOOD + "X = 2\n"), r"\(changed: v001_pre_a\)"),
        (lambda folder: (folder / "v002_pre_b.py").unlink(), r"\(gone: v002_pre_b\)"),
        (
            lambda folder: (folder / "v002_pre_b.py").rename(folder / "v002_pre_c.py"),
            r"\(new: v002_pre_c; gone: v002_pre_b\)",
        ),
    ],
)
def test_a_folder_that_differs_is_refused_with_the_command_that_mends_it(
    change: Callable[[Path], object], told: str, folder: Path
) -> None:
    change(folder)

    with pytest.raises(FolderDiffers, match=rf"from its migrations\.sum {told}; .* run `compliance migrate sum`"):
        check(folder)
    assert write_sum(folder, discover(folder))
    assert check(folder)
    assert not write_sum(folder, discover(folder))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda _: "", "not of its form"),
        (lambda text: text.replace("/v1", "/v2"), "not of its form"),
        (lambda text: "<<<<<<< HEAD\n" + text, "not of its form"),
        (lambda text: text + "=======\n", "not of its form"),
        (lambda text: text + "\n", "not of its form"),
        (lambda text: text.rsplit("\n", 2)[0] + "\n", "does not fit the others"),
        (lambda text: text[:-2] + ("0" if text[-2] != "0" else "1") + "\n", "does not fit the others"),
        (lambda text: text + text.splitlines()[-1] + "\n", "not of its form"),
    ],
    ids=["empty", "version", "conflict", "marks", "blank", "without the last", "another checksum", "twice"],
)
def test_a_file_that_somebody_wrote_in_is_refused(change: Callable[[str], str], told: str, folder: Path) -> None:
    path = folder / FILE
    path.write_text(change(path.read_text()))

    with pytest.raises(FolderDiffers, match=told):
        check(folder)


def test_a_file_that_cannot_be_read_is_refused(folder: Path) -> None:
    (folder / FILE).write_bytes(b"\xff")

    with pytest.raises(FolderDiffers, match=r"migrations\.sum cannot be read"):
        check(folder)


def test_a_file_that_cannot_be_written_is_told(folder: Path) -> None:
    (folder / FILE).unlink()
    (folder / FILE).mkdir()

    with pytest.raises(MigrationError, match="cannot be written in the migrations folder"):
        write_sum(folder, discover(folder))


def test_the_foundation_that_comes_with_the_package_does_not_count(folder: Path) -> None:
    foundation = MIGRATIONS / "v000_pre_foundation.py"

    assert check_sum(folder, discover(folder, foundation=foundation))


@given(revisions=folders())
def test_what_is_written_is_read(revisions: tuple[Revision, ...]) -> None:
    hexed = [_with(one, one.name.encode().hex().ljust(64, "0")[:64]) for one in revisions]

    assert parse_sum(format_sum(hexed)) == {one.name: one.checksum for one in hexed}
    assert format_sum(hexed) == format_sum(reversed(hexed))
    compare(parse_sum(format_sum(hexed)), hexed)


def git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    identity = ["-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=False)


def test_two_branches_that_each_add_a_script_conflict_in_git(folder: Path) -> None:
    assert git(folder, "init", "-q", "-b", "main").returncode == 0
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "start")
    for branch, name in (("one", "v003_pre_c"), ("two", "v010_pre_d")):
        git(folder, "checkout", "-q", "-b", branch, "main")
        add(folder, name)
        write_sum(folder, discover(folder))
        git(folder, "add", ".")
        assert git(folder, "commit", "-q", "-m", branch).returncode == 0

    merged = git(folder, "merge", "one")

    assert "CONFLICT" in merged.stdout
    assert FILE in merged.stdout
    with pytest.raises(FolderDiffers, match="two branches added a script"):
        check(folder)


def _with(one: Revision, checksum: str) -> Revision:
    return replace(one, checksum=checksum)
