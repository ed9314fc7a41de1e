"""The pages name every finding and every incident that there is, and what to do; their links lead somewhere."""

import re
from pathlib import Path

import pytest

from compliance.audit.incident import Kind
from compliance.audit.verification import Fault

DOCS = Path(__file__).parents[2] / "docs"
LINK = re.compile(r"\]\((?P<page>[\w./-]*\.md)?#(?P<place>[\w-]+)\)")


def rows(page: str, heading: str) -> list[str]:
    """The names in the first column of the table below *heading*."""
    text = (DOCS / page).read_text(encoding="utf-8").split(f"\n{heading}\n", 1)[1]
    below = re.split(r"^##", text, maxsplit=1, flags=re.MULTILINE)[0]
    cells = re.findall(r"^\| (`[^|]*) \|", below, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([A-Z-]+)`", cell)]


@pytest.mark.parametrize("heading", ["## What a finding means", "## What to do about a finding"])
def test_every_finding_is_explained_once(heading: str) -> None:
    assert sorted(rows("audit.md", heading)) == sorted(Fault)


def test_every_kind_of_incident_is_explained() -> None:
    assert set(rows("operations.md", "### The tamper alarm rang")) == set(Kind)


def places(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_links_into_pages_lead_to_a_heading(page: Path) -> None:
    for link in LINK.finditer(page.read_text(encoding="utf-8")):
        target = page.parent / (link["page"] or page.name)
        assert link["place"] in places(target), link[0]
