"""Scenario files: what they say, and where they are wrong."""

from dataclasses import replace
from pathlib import Path

import pytest

from orchestration.errors import UsageError
from orchestration.request import SweepRequest, to_scenario
from orchestration.scenario_file import (
    MAX_FILE_BYTES,
    RESERVED_NAMES,
    read_scenario,
    shipped_scenarios,
)

WHOLE = """\
name = "all-of-it"
description = "Every setting once"
thresholds = ["p99 < 50ms at k=1"]

[cluster]
followers = 3
delay_ms = [1, 20.5]
delay_model = "fifo"
ack = ["memory", "fsync"]
pin = true
engine = "local"

[load]
workload = "ycsb-a"
rate = 150
arrivals = "poisson"
keys = 5_000
key_choice = "latest"
value_bytes = [100, 200]
read_share = 0.9
read_from = "followers"
processes = 2
warmup = "500ms"
duration = 3

[sweep]
k = "0-2"
trials = 7
seed = 11
"""


def write(tmp_path: Path, text: str) -> str:
    """A file of this text."""
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_every_setting_reaches_the_request(tmp_path: Path) -> None:
    """What a file says is what is asked for."""
    assert read_scenario(write(tmp_path, WHOLE)) == SweepRequest(
        name="all-of-it",
        workload="ycsb-a",
        quorums="0-2",
        quorums_name=f"{tmp_path / 'mine.toml'}, line 27: sweep.k",
        trials=7,
        warmup_s=0.5,
        duration_s=3.0,
        rate_per_s=150.0,
        followers=3,
        delay_ms=(1.0, 20.5),
        delay_model="fifo",
        engine="local",
        keys=5_000,
        arrivals="poisson",
        key_choice="latest",
        value_bytes=(100, 200),
        read_share=0.9,
        read_from="followers",
        processes=2,
        acks=("memory", "fsync"),
        is_pinned=True,
        thresholds=("p99 < 50ms at k=1",),
        seed=11,
    )


def test_a_short_file_leaves_the_rest_to_the_defaults(tmp_path: Path) -> None:
    """One line is a scenario; its name is that of the file."""
    request = read_scenario(write(tmp_path, "[load]\nusers = 4\n"))
    assert request == SweepRequest(name="mine", users=4)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[load]\nrate = 0\n", 2, "load.rate was given '0'"),
        ("[load]\n\nrate = 'fast'\n", 3, "load.rate will not do"),
        ("[load]\nspeed = 3\n", 2, "there is no setting load.speed"),
        ("speed = 3\n[load]\nrate = 10\n", 1, "there is no setting speed"),
        ("[load]\nrate = 10\nduration = '5 parsecs'\n", 3, "load.duration was given"),
        ("[cluster]\ndelay_ms = [\n  30,\n  10,\n]\n", 5, "cluster.delay_ms was given"),
        ("[cluster]\nfollowers = 99\n", 2, "cluster.followers"),
        ("[cluster]\nack = 'paper'\n", 2, "cluster.ack will not do"),
        ("[cluster]\ndelay_model = 'lifo'\n", 2, "cluster.delay_model will not do"),
        ("[load]\nworkload = 'ycsb-z'\n", 2, "load.workload will not do"),
        ("[load]\nvalue_bytes = 3\n", 2, "load.value_bytes"),
        ("[cluster]\nattach = 'http://a:b'\n", 2, "cluster.attach was given 'http://a:b'"),
        ("load.rate = 10\nload.keys = 0\n", 2, "load.keys"),
        ("name = 'Not A Name'\n", 1, "name must be"),
        ('thresholds = [\n "p99 < 1s",\n "p98 < 1s",\n]\n', 4, "p98"),
        ("[sweep]\ntrials = 1\nk = true\n", 3, "sweep.k will not do"),
    ],
)
def test_what_will_not_do_is_refused_with_its_line(
    tmp_path: Path, text: str, line: int, words: str
) -> None:
    """The message has the file, the line and the setting."""
    path = write(tmp_path, text)
    with pytest.raises(UsageError) as refusal:
        read_scenario(path)
    assert str(refusal.value).startswith(f"{path}, line {line}: ")
    assert words in str(refusal.value)


def test_quorums_that_the_cluster_cannot_have_are_refused_with_their_line(tmp_path: Path) -> None:
    """How many followers there are is known later, and the line is told all the same."""
    path = write(tmp_path, "[cluster]\nfollowers = 2\n[sweep]\nk = [1, 3]\n")
    with pytest.raises(UsageError, match=r"line 4: sweep\.k was given '1,3'"):
        to_scenario(read_scenario(path), followers=2, fresh_seed=1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[load\n", "is not TOML: .*line 1"),
        ("[load]\nrate = 10\nusers = 3\n", "give one of the two"),
        ("[cluster]\nattach = 'http://a'\nack = 'fsync'\n", "DATA_DIR"),
        ("#" * (MAX_FILE_BYTES + 1), "larger than"),
    ],
)
def test_a_file_that_says_nothing_that_can_be_done_is_refused(
    tmp_path: Path, text: str, words: str
) -> None:
    """One sentence, with the file's name."""
    with pytest.raises(UsageError, match=rf"mine\.toml.*{words}"):
        read_scenario(write(tmp_path, text))


def test_a_file_of_64_kib_is_read_and_no_longer_one(tmp_path: Path) -> None:
    """A limit has a number."""
    assert read_scenario(write(tmp_path, "#" * 65_536)).quorums is None
    with pytest.raises(UsageError, match="larger than 65,536 bytes"):
        read_scenario(write(tmp_path, "#" * 65_537))


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    """The path is in the message, and for a name those that there are."""
    with pytest.raises(UsageError, match="cannot be read"):
        read_scenario(str(tmp_path / "nowhere.toml"))
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not UTF-8"):
        read_scenario(str(tmp_path / "mine.toml"))
    with pytest.raises(UsageError, match="disks, sessions, wan"):
        read_scenario("no-such-name")


@pytest.mark.parametrize("name", shipped_scenarios())
def test_what_comes_along_can_be_run(name: str) -> None:
    """Each has a description, and makes a scenario on its own cluster."""
    request = read_scenario(name)
    assert shipped_scenarios()[name]
    scenario = to_scenario(request, followers=request.followers or 5, fresh_seed=1)
    assert scenario.name == name


def test_options_win_over_the_file(tmp_path: Path) -> None:
    """What is given on the command line replaces what the file says, and what excludes it."""
    file = read_scenario(write(tmp_path, WHOLE))
    assert SweepRequest(trials=1, seed=0).over(file).trials == 1
    assert SweepRequest(trials=1, seed=0).over(file).seed == 0
    more = SweepRequest(thresholds=("errors < 1%",)).over(file)
    assert more.thresholds == (*file.thresholds, "errors < 1%")
    named = SweepRequest(quorums="9").over(file)
    assert (named.quorums, named.quorums_name) == ("9", "--k")
    closed = SweepRequest(users=3).over(file)
    assert (closed.users, closed.rate_per_s) == (3, None)
    local = SweepRequest(engine="local").over(file)
    assert (local.engine, local.acks, local.is_pinned) == ("local", file.acks, file.is_pinned)
    plain = replace(file, acks=None, is_pinned=None)
    attached = SweepRequest(attach_url="http://a").over(plain)
    assert (attached.followers, attached.delay_ms, attached.delay_model) == (None, None, None)
    composed = SweepRequest(engine="compose").over(plain)
    assert (composed.engine, composed.workload) == ("compose", "ycsb-a")


@pytest.mark.parametrize("elsewhere", [{"engine": "compose"}, {"attach_url": "http://a"}])
@pytest.mark.parametrize(("setting", "name"), [("acks", "ack"), ("is_pinned", "pin")])
def test_a_question_that_a_cluster_cannot_answer_is_refused_and_not_dropped(
    tmp_path: Path, elsewhere: dict[str, str], setting: str, name: str
) -> None:
    """A scenario that compares memory and disk would measure something else without a word."""
    other = "is_pinned" if setting == "acks" else "acks"
    file = replace(read_scenario(write(tmp_path, WHOLE)), **{other: None})
    with pytest.raises(UsageError, match=f"{name} in a scenario"):
        SweepRequest(**elsewhere).over(file)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", RESERVED_NAMES)
def test_a_name_that_the_outputs_have_taken_is_refused(tmp_path: Path, name: str) -> None:
    """Neither the file's name nor its setting may send a run to reports/latest."""
    named = tmp_path / f"{name}.toml"
    named.write_text("[sweep]\ntrials = 1\n")
    with pytest.raises(UsageError, match=f"{name}.toml, .*give the scenario another name"):
        read_scenario(str(named))
    with pytest.raises(UsageError, match=r"line 2: .*give the scenario another name"):
        read_scenario(write(tmp_path, f"\nname = '{name}'\n"))
    named.write_text("name = 'mine'\n")
    assert read_scenario(str(named)).name == "mine"


def test_a_mark_of_the_byte_order_is_no_part_of_the_text(tmp_path: Path) -> None:
    """Notepad and PowerShell write one."""
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xef\xbb\xbf[sweep]\ntrials = 2\n")
    assert read_scenario(str(path)).trials == 2
    path.write_bytes("[sweep]\ntrials = 2\n".encode("utf-16"))
    with pytest.raises(UsageError, match="not UTF-8 text, so no scenario: save it"):
        read_scenario(str(path))


def test_nothing_given_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    """No default of an option hides what a file says."""
    file = read_scenario(write(tmp_path, WHOLE))
    assert SweepRequest().over(file) == file
