"""Every link between pages leads somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path):
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    broken = [t for t in targets if "://" not in t and not (page.parent / t).exists()]

    assert broken == []


def anchors_of(page: Path) -> set[str]:
    """The places in a page that a link may name, as GitHub makes them of its headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_place_in_a_page_that_a_link_names_is_there(page: Path):
    links = re.findall(r"\]\(([^)#]*)#([^)]+)\)", page.read_text())
    named = [(target, place) for target, place in links if "://" not in target]
    broken = [
        f"{target}#{place}"
        for target, place in named
        if place not in anchors_of(page.parent / target if target else page)
    ]

    assert broken == []


def test_the_readme_leads_to_every_page_for_users():
    readme = (ROOT / "README.md").read_text()
    folders = ("howto", "explanation", "reference")
    pages = [page for name in folders for page in (ROOT / "docs" / name).glob("*.md")]

    assert [page.name for page in pages if f"({page.relative_to(ROOT)})" not in readme] == []
