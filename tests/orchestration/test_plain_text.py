"""Text that is not ours is shown as it is, and never obeyed."""

import io

import pytest
from rich.table import Column, Table
from rich.text import Text

from orchestration.plain_text import one_line, visible
from orchestration.terminal import PlainConsole, print_whole

# Names and URLs as users and foreign nodes have them.
NAMES = [
    "rack[a1]",
    "db:key:1",
    "http://[fd00::9]:9203",
    "http://[fe80::1%25eth0]:1",
    "n[/b]",
    "[/]",
    "[bold red]x[/]",
    "[link=http://evil]n[/link]",
    ":smile:",
    "a\\[b]",
    "50% [x]",
    "$x_1$",
]
ORDERS = [
    "\x1b[2J",
    "\x1b]0;title\x07",
    "\x1b]8;;http://evil\x1b\\n\x1b]8;;\x1b\\",
    "\x9b31m",
    "a\rb",
    "a\bb",
    "\x00",
    "\u202egnp.exe",
    "\u2066x\u2069",
    "x\u2028y",
    "\x7f",
]


def shown(value: object, *, in_table: bool = False) -> str:
    """What a console in a pipe prints."""
    stream = io.StringIO()
    console = PlainConsole(stream)
    if in_table:
        table = Table(str(value), title=str(value), box=None)
        table.add_row(value)  # type: ignore[arg-type] # a text, or a Text
        print_whole(console, table)
    else:
        console.print(value, soft_wrap=True)
    return stream.getvalue()


@pytest.mark.parametrize("name", NAMES)
def test_no_text_is_markup_or_emoji(name: str) -> None:
    """A URL keeps its address, a name its brackets and colons, whatever they would mean to Rich."""
    assert shown(f"<{name}>") == f"<{name}>\n"
    assert shown(name, in_table=True).split() == [*name.split()] * 3


@pytest.mark.parametrize("order", ORDERS)
def test_no_text_gives_orders_to_a_terminal(order: str) -> None:
    """It is shown by its escapes, also where it came as styled text."""
    for text in (
        shown(order),
        shown(Text(order)),
        shown(order, in_table=True),
        shown(Text(order), in_table=True),
    ):
        assert not set(text) & set("\x1b\x9b\r\b\x00\x07\x7f\u202e\u2066\u2069\u2028")
    assert "\\x1b[2J" in shown("\x1b[2J")


def test_text_keeps_its_lines_and_a_name_has_one() -> None:
    """A message may have several lines; a name cannot pass for a line of ours."""
    assert visible("a\n\tb \u00e9 \U0001f642") == "a\n\tb \u00e9 \U0001f642"
    assert one_line("n1\n2026-01-01 CRITICAL\t") == "n1\\n2026-01-01 CRITICAL\\t"
    assert one_line(None) == "None"


def test_a_table_in_a_pipe_is_cut_nowhere() -> None:
    """Not to the width of a terminal that is not there."""
    url = f"http://{'a' * 200}.example:8000"
    stream = io.StringIO()
    table = Table(Column("url", no_wrap=True), "detail")
    table.add_row(url, "words " * 50)
    print_whole(PlainConsole(stream, width=80), table)
    lines = stream.getvalue().splitlines()
    assert url in lines[3]
    assert lines[3].count("words") == 50


def test_a_table_on_a_narrow_terminal_keeps_its_urls_whole() -> None:
    """Other cells wrap; the terminal itself breaks what is wider than it."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    url = f"http://{'a' * 100}.example:8000"
    stream = Terminal()
    table = Table(Column("url", no_wrap=True), "detail")
    table.add_row(url, "words " * 50)
    print_whole(PlainConsole(stream, width=40, color_system=None), table)
    assert url in stream.getvalue()
    assert max(len(line) for line in stream.getvalue().splitlines()) < 200
