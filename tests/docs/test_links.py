"""Links between the pages and into the code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.docs.pages import PAGES, anchors_of, links_of, name_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    """Who follows a link finds the file, and the heading that it names."""
    broken: list[str] = []
    for link in links_of(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            broken.append(link)
    assert not broken, f"{name_of(page)} links to what is not there: {broken}"


def test_pages_are_all_reachable_from_the_readme() -> None:
    """No page is written that nobody finds."""
    reached, waiting = set(), [PAGES[0].parents[0] / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        targets = [(page.parent / link.partition("#")[0]).resolve() for link in links_of(page)]
        waiting += [found for found in targets if found.suffix == ".md" and found.exists()]
        waiting += [found for folder in targets if folder.is_dir() for found in folder.glob("*.md")]
    assert not set(PAGES) - reached
