"""The command line: what it refuses, and what it plans."""

import errno
import json
import shlex
from pathlib import Path

import click
import pytest

from orchestration import __main__ as entry
from orchestration import commands
from orchestration.cli import cli, run
from orchestration.cli_options import Command
from orchestration.exit_codes import MEANINGS, ExitCode


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees a cluster that the user keeps."""
    monkeypatch.setenv("QUORUMETER_STATE_DIR", str(tmp_path / "state"))


def test_without_arguments_it_says_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """And names four commands to try first."""
    assert run([]) == 0
    out = capsys.readouterr().out
    assert "write quorum" in out
    assert sum(line.startswith("  quorumeter ") for line in out.splitlines()) == 4


@pytest.mark.parametrize("command", sorted(cli.commands))
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--help of each says what it does."""
    assert run([command, "--help"]) == 0
    assert f"Usage: quorumeter {command}" in capsys.readouterr().out


@pytest.mark.parametrize("command", sorted(cli.commands))
def test_every_command_shows_an_example_that_it_takes(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its options are there, and their values are allowed."""
    shown = cli.commands[command]
    assert isinstance(shown, Command)
    assert run([command, "--help"]) == 0
    assert f"  {shown.example}\n" in capsys.readouterr().out
    program, name, *arguments = shlex.split(shown.example)
    assert (program, name) == ("quorumeter", command)
    with shown.make_context(name, arguments) as context:
        assert context.args == []


@pytest.mark.parametrize("command", ["", *sorted(cli.commands)])
def test_help_has_the_exit_codes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each with what it means."""
    assert run([*filter(None, [command]), "--help"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert all(f"{code:d} {MEANINGS[code]}" in told for code in ExitCode)


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """--version names the program and its version."""
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("quorumeter, version ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--k", "9"], ["--k", "'9'", "0 to 5"]),
        (["--k", "2", "--followers", "1"], ["--k", "'2'", "0 to 1"]),
        (["--trials", "0"], ["--trials", "'0'", "1 to 1,000"]),
        (["--warmup", "soon"], ["--warmup", "'soon'", "0s to 3,600s"]),
        (["--duration", "0"], ["--duration", "'0'", "0.1s to 86,400s"]),
        (["--rate", "-5"], ["--rate", "'-5'", "0.1 to 100,000"]),
        (["--users", "0"], ["--users", "'0'", "1 to 10,000"]),
        (["--followers", "99"], ["--followers", "'99'", "0 to 20"]),
        (["--delay", "9:1"], ["--delay", "'9:1'", "0:60,000"]),
        (["--seed", "-1"], ["--seed", "'-1'", "0 to 4,294,967,295"]),
        (["--attach", "here"], ["--attach", "'here'", "http://"]),
        (["--workload", "reads"], ["--workload", "'reads'", "mixed"]),
        (["--engine", "redis"], ["--engine", "'redis'", "compose"]),
        (["--engine", "compose", "--followers", "3"], ["--followers", "3", "docker-compose.yml"]),
        (["--rate", "5", "--users", "5"], ["--rate", "--users"]),
        (["--no-such-option"], ["--no-such-option"]),
        (["stray"], ["stray"]),
        (["--attach", "http://127.0.0.1:1", "--delay-model", "fifo"], ["--delay-model"]),
    ],
)
def test_a_bad_option_is_refused_in_one_sentence(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 64; the sentence names the option, what was given and what is allowed."""
    assert run(["sweep", "--dry-run", *arguments]) == 64
    captured = capsys.readouterr()
    assert not captured.out
    assert captured.err.count("\n") == 1
    for word in words:
        assert word in captured.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["failover", "--node"],
        ["watch", "--node"],
        ["status", "--attach"],
        ["parity", "--attach"],
        ["web", "--attach"],
        ["sweep", "--attach"],
        ["saturate", "--attach"],
    ],
)
def test_a_url_that_is_none_is_refused_in_one_sentence(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A crash would end with 1, the code of a violation."""
    url = "http://127.0.0.1:80a"
    assert run([*arguments, url]) == 64
    told = capsys.readouterr().err
    assert f"{arguments[-1]} was given {url!r}, but it must be the URL of a node" in told
    assert told.count("\n") == 1


@pytest.mark.parametrize("arguments", [["no-such-command"], ["report"], ["up", "--port", "80"]])
def test_a_bad_command_line_ends_with_the_usage_code(arguments: list[str]) -> None:
    """Click's own 2 would mean an unknown verdict."""
    assert run(arguments) == 64


@pytest.mark.parametrize("command", sorted(cli.commands))
def test_an_option_is_given_once(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Of two values one would be ignored, and which one is for the user to say."""
    for option in cli.commands[command].params:
        if not isinstance(option, click.Option) or option.multiple or option.is_flag:
            continue
        assert run([command, option.opts[0], "1", option.opts[0], "2"]) == 64
        assert f"{option.opts[0]} is given 2 times: give it once." in capsys.readouterr().err


def test_a_dry_run_prints_the_plan_and_its_duration(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is started; every block has every k."""
    assert run(["sweep", "--dry-run", "--k", "0-2,5", "--seed", "4"]) == 0
    out = capsys.readouterr().out
    assert "seed 4" in out
    assert "12 trials, about" in out


@pytest.mark.parametrize("command", ["sweep", "saturate"])
def test_the_plan_names_the_delay_model_that_was_chosen(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What --delay-model asks for is in the plan, in words and as JSON."""
    arguments = [command, "--dry-run", "--delay-model", "fifo"]
    assert run(arguments) == 0
    assert "link delays 0 to 100 ms, uniform, fifo" in capsys.readouterr().out
    assert run([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scenario"]["delay_model"] == "fifo"


@pytest.mark.parametrize("command", ["sweep", "saturate", "up", "web", "calibrate"])
def test_every_command_that_starts_nodes_takes_a_delay_model(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One option with the same two models; any other is refused."""
    assert run([command, "--delay-model", "lifo"]) == 64
    assert "independent" in capsys.readouterr().err


def test_a_dry_run_as_json_is_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    """The scenario, its cells in order, and the seconds that it takes."""
    assert run(["sweep", "--dry-run", "--json", "--k", "1,3", "--trials", "2", "--seed", "4"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["scenario"]["quorums"] == [1, 3]
    assert sorted((c["block"], c["k"]) for c in found["cells"]) == [(0, 1), (0, 3), (1, 1), (1, 3)]
    assert found["expected_duration_s"] > 20


@pytest.mark.parametrize(
    "chosen",
    [
        ["--warmup", "0"],
        ["--seed", "0"],
        ["--read-share", "0"],
        ["--scenario", "wan"],
        ["--dry-run"],
        ["--threshold", "p99 < 1s"],
        ["--pin"],
    ],
)
def test_what_a_resumed_run_says_itself_cannot_be_chosen(
    chosen: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A 0 is a choice, too: accepted and ignored, it would be taken for measured."""
    assert run(["sweep", "--resume", str(tmp_path), *chosen]) == 64
    assert f"leave out {chosen[0]}." in capsys.readouterr().err


@pytest.mark.parametrize("chosen", [["--json"], ["--quiet"], ["--strict"]])
def test_how_a_resumed_run_speaks_can_be_chosen(
    chosen: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """These say nothing of what is measured."""
    assert run(["sweep", "--resume", str(tmp_path), *chosen]) == 64
    assert "cannot be resumed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "acks"),
    [
        ([], ["memory"]),
        (["--ack", "fsync"], ["fsync"]),
        (["--ack", "fsync, memory"], ["fsync", "memory"]),
        (["--durable"], ["memory", "fsync"]),
    ],
)
def test_ack_means_the_same_in_every_command(
    options: list[str], acks: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a scenario file: from where nodes acknowledge; --durable is short for both."""
    assert run(["sweep", "--dry-run", "--json", *options]) == 0
    assert json.loads(capsys.readouterr().out)["scenario"]["acks"] == acks
    if len(acks) == 1:
        assert run(["saturate", "--dry-run", "--json", *options]) == 0
        assert json.loads(capsys.readouterr().out)["scenario"]["acks"] == acks


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--ack", "paper"], "--ack was given 'paper'"),
        (["--ack", "fsync", "--durable"], "give one of the two"),
        (["--ack", "fsync", "--engine", "compose"], "--ack"),
    ],
)
def test_an_ack_that_cannot_be_had_is_refused(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a sentence that names the option."""
    assert run(["sweep", "--dry-run", *options]) == 64
    assert words in capsys.readouterr().err


def test_a_dry_run_knows_of_loading_and_of_memory(capsys: pytest.CaptureFixture[str]) -> None:
    """A million records of 1,000 bytes are written first, and held by six nodes."""
    options = ["sweep", "--workload", "ycsb-c", "--trials", "1", "--dry-run"]
    assert run([*options, "--json"]) == 0
    few = json.loads(capsys.readouterr().out)
    assert run([*options, "--json", "--keys", "300000"]) == 0
    many = json.loads(capsys.readouterr().out)
    loading_s = many["expected_loading_s"]
    assert loading_s > 20
    assert many["expected_duration_s"] - few["expected_duration_s"] > 0.9 * loading_s
    assert many["records_bytes"] == 300_000 * 1_500 * 6
    assert run([*options, "--keys", "300000"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "300,000 records are written" in told
    assert "2.5 GiB of memory in all nodes" in told


def test_records_that_no_memory_here_holds_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything starts: the machine would swap, or kill what it can."""
    options = ["--workload", "ycsb-c", "--keys", "1000000", "--value-bytes", "1048576"]
    for more in (["--dry-run"], ["--out", str(tmp_path / "reports")]):
        assert run(["sweep", *options, *more]) == 64
        told = capsys.readouterr().err
        assert "5,862.2 GiB" in told
        assert "--keys" in told
    assert not (tmp_path / "reports").exists()


@pytest.mark.parametrize("command", ["status", "parity"])
def test_without_a_cluster_a_command_says_how_to_get_one(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2: what was asked is unknown."""
    assert run([command]) == 2
    assert "quorumeter up" in capsys.readouterr().err


def test_down_without_a_cluster_has_nothing_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    """It is no error to have nothing running."""
    assert run(["down"]) == 0
    assert "nothing to end" in capsys.readouterr().out


def test_a_report_of_no_run_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sentence says what a run's folder looks like."""
    assert run(["report", str(tmp_path)]) == 64
    assert "manifest.json" in capsys.readouterr().err


def test_a_crash_on_a_file_never_ends_with_the_code_of_a_violation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the system refuses, wherever it does, is a sentence and exit code 74."""

    def refuse() -> int:
        raise PermissionError(errno.EACCES, "Permission denied", "/full/disk")

    monkeypatch.setattr(commands, "down", refuse)
    assert run(["down"]) == 74
    assert capsys.readouterr().err == "quorumeter: /full/disk: Permission denied.\n"


def test_an_installation_without_the_tool_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A node's installation answers in a sentence that says what to install."""
    monkeypatch.setattr(entry, "find_spec", lambda name: None if name == "rich" else object())
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert ended.value.code == 64
    err = capsys.readouterr().err
    assert "rich" in err
    assert "pip install 'quorumeter[bench]'" in err
