"""What the pages have a reader type exists: commands, options, sessions."""

from __future__ import annotations

import argparse
import ast
from typing import TYPE_CHECKING, Any

import pytest

from orchestration.cli import cli
from orchestration.load.options import add_options
from tests.bench.__main__ import make_parser
from tests.docs.pages import PAGES, ROOT, inline_code_of, invocations_of, name_of

if TYPE_CHECKING:
    from pathlib import Path

    import click

# Of other programs' options the pages name these alone, in sentences.
LOCUSTS_OWN = {"--host", "--web-login", "--headless", "--users", "--processes", "--csv"}
OTHERS = {"--no-deps", "--build", "--"}
QUORUMETER_SESSIONS = {"sweep": "sweep", "saturate": "saturate", "web": "web"}


def options_of(command: click.Command) -> set[str]:
    """A command's options by all their names."""
    names = {name for param in command.params for name in param.opts if name.startswith("-")}
    return names | {"--help", "-h"}


def load_options() -> set[str]:
    """The options that the load adds to Locust's."""

    class Parser(argparse.ArgumentParser):
        """Takes what Locust's parser takes."""

        def add_argument(self, *names: Any, **more: Any) -> Any:
            """Adds an option; whether the web form shows it does not matter here."""
            more.pop("include_in_web_ui", None)
            return super().add_argument(*names, **more)

    parser = Parser()
    add_options(parser, {})  # type: ignore[arg-type] # as far as it is used, the same
    return {name for name in parser._option_string_actions if name.startswith("--")}


def bench_options() -> set[str]:
    """The options of the bench."""
    return {name for name in make_parser()._option_string_actions if name.startswith("--")}


def sessions() -> set[str]:
    """The names of nox's sessions."""
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    (campaigns,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CAMPAIGNS"
    )
    return set(campaigns) | {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any("session" in ast.unparse(decorator) for decorator in node.decorator_list)
    }


def unknown_words(arguments: list[str]) -> list[str]:
    """What of a call of quorumeter does not exist."""
    if arguments[:1] == ["--debug"]:  # the one option that stands before a command's name
        arguments = arguments[1:]
    if not arguments or arguments[0] in {"--help", "--version", "-h"}:
        return []
    command = cli.commands.get(arguments[0])
    if command is None:
        return arguments[:1]
    given = {word.split("=")[0] for word in arguments if word.startswith("-")}
    return sorted(given - options_of(command))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_call_of_quorumeter_exists(page: Path) -> None:
    """Commands and their options are those of the command line."""
    wrong = {
        call.line: unknown
        for call in invocations_of(page, "quorumeter")
        if (unknown := unknown_words(call.arguments))
    }
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_nox_session_exists(page: Path) -> None:
    """And what is handed on to quorumeter behind ``--`` exists too."""
    known = sessions()
    for call in invocations_of(page, "nox"):
        before, *behind = " ".join(call.arguments).split(" -- ")
        named = before.split()[1:] if before.startswith("-s") else []
        assert set(named) <= known, call.line
        if behind and named and named[0] in QUORUMETER_SESSIONS:
            assert not unknown_words([QUORUMETER_SESSIONS[named[0]], *behind[0].split()]), call.line


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_option_in_a_sentence_exists(page: Path) -> None:
    """An option that is named alone is quorumeter's, the load generator's or the bench's."""
    known = set().union(*(options_of(command) for command in cli.commands.values()))
    known |= load_options() | bench_options() | LOCUSTS_OWN | OTHERS
    named = {code.split()[0].split("=")[0] for code in inline_code_of(page) if code[:2] == "--"}
    assert not named - known


def test_reading_commands_finds_what_a_page_runs() -> None:
    """The tests above look at something: the pages do run the tool and its sessions."""
    calls = [call for page in PAGES for call in invocations_of(page, "quorumeter")]
    assert {call.arguments[0] for call in calls if call.arguments} >= set(cli.commands)
    assert unknown_words(["sweep", "--no-such-option"]) == ["--no-such-option"]
    assert unknown_words(["swep"]) == ["swep"]
    assert {"sweep", "web", "tests", "bench", "compose", "kills"} <= sessions()
