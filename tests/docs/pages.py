"""The documentation as the tests read it: pages, links, code, tables."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])

_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_INLINE_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
_PROMPT = "$ "
# What ends a command in a shell.
_BREAKS = {"|", "||", "&", "&&", ";", ">", "2>", "#"}


class Invocation(NamedTuple):
    """A program's arguments as a page shows them, and the line that they stand on."""

    arguments: list[str]
    line: str


def name_of(page: Path) -> str:
    """A page's path inside the project, as the tests name it."""
    return page.relative_to(ROOT).as_posix()


def prose_of(page: Path) -> str:
    """A page without its blocks of code."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def links_of(page: Path) -> list[str]:
    """The targets of a page's links to files of the project."""
    targets = _LINK.findall(_INLINE_CODE.sub("", prose_of(page)))
    return [target for target in targets if "://" not in target]


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them: of equal ones the second gets -1."""
    anchors: set[str] = set()
    for heading in _HEADING.findall(prose_of(page)):
        words = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        number = sum(anchor == words or anchor.startswith(f"{words}-") for anchor in anchors)
        anchors.add(words if words not in anchors else f"{words}-{number}")
    return anchors


def inline_code_of(page: Path) -> list[str]:
    """The code inside a page's sentences and tables."""
    return _INLINE_CODE.findall(prose_of(page))


def commands_of(page: Path) -> list[str]:
    """Lines that a page has the reader type, and code in its sentences.

    In a block that shows a prompt the other lines are output; nothing of a block that names a
    language, or text, is typed.
    """
    lines = inline_code_of(page)
    for block in _FENCE.findall(page.read_text(encoding="utf-8")):
        kind, *inside, _ = block.replace("\\\n", " ").splitlines()
        if kind != "```":  # a drawing, or code in a language
            continue
        typed = [line.removeprefix(_PROMPT) for line in inside if line.startswith(_PROMPT)]
        lines += typed or inside
    return lines


def invocations_of(page: Path, program: str) -> list[Invocation]:
    """Each time that a page runs a program: ``quorumeter sweep --k 3 | less`` as three words."""
    found: list[Invocation] = []
    for line in commands_of(page):
        words = _words(line)
        for index, word in enumerate(words):
            if word == program:
                arguments = words[index + 1 :]
                end = next((i for i, each in enumerate(arguments) if each in _BREAKS), None)
                found.append(Invocation(arguments[:end], line))
    return found


def table_after(page: Path, heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, without its head."""
    text = page.read_text(encoding="utf-8")
    _, found, rest = text.partition(f"# {heading}\n")
    if not found:
        raise LookupError(f"{name_of(page)} has no heading {heading!r}")
    rows: list[list[str]] = []
    for line in rest.splitlines():
        if line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line.strip("|"))
            rows.append([cell.strip() for cell in cells])
        elif rows:
            break
    return rows[2:]


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line.replace(";", " ; "), comments=False)
    except ValueError:  # a sentence's apostrophe, or an ellipsis of output
        return line.split()
