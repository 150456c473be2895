"""Values that users write: what is understood, and what a refusal says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration import limits
from orchestration.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0-5", (0, 1, 2, 3, 4, 5)),
        ("1,3", (1, 3)),
        ("0-2,5", (0, 1, 2, 5)),
        ("3,1,3", (1, 3)),
        (" 2 , 4 ", (2, 4)),
    ],
)
def test_quorums_in_every_notation_are_understood(text: str, expected: tuple[int, ...]) -> None:
    """The notations of the manual give the quorums that they mean, ascending and each once."""
    assert limits.parse_quorums(text, "--k", 5) == expected


@pytest.mark.parametrize("text", ["", "a", "6", "-1", "3-1", "0-9", "1,,2", "1;2", "1.5", "99999"])
def test_quorums_that_cannot_be_are_refused_by_name_and_range(text: str) -> None:
    """A refusal names the option, what was given, and the range."""
    with pytest.raises(UsageError) as refused:
        limits.parse_quorums(text, "--k", 5)
    message = str(refused.value)
    assert "--k" in message
    assert repr(text) in message
    assert "from 0 to 5" in message


@given(st.sets(st.integers(0, 30), min_size=1))
def test_quorums_survive_being_written_and_read(quorums: set[int]) -> None:
    """Formatting and parsing are inverse."""
    text = limits.format_quorums(quorums)
    assert limits.parse_quorums(text, "--k", 30) == tuple(sorted(quorums))


@pytest.mark.parametrize(
    ("text", "expected_s"),
    [("10", 10.0), ("10s", 10.0), ("500ms", 0.5), ("2m", 120.0), ("1.5", 1.5), ("1h", 3600.0)],
)
def test_durations_in_every_unit_become_seconds(text: str, expected_s: float) -> None:
    """A bare number is seconds; ms, s, m and h are understood."""
    assert limits.DURATION.parse(text, "--duration") == pytest.approx(expected_s)


@pytest.mark.parametrize("text", ["", "fast", "-1", "0", "10x", "1e3", "10 s s", "nan", "2d"])
def test_a_duration_that_is_none_is_refused_by_name(text: str) -> None:
    """A refusal names the option and what was given."""
    with pytest.raises(UsageError, match="--duration") as refused:
        limits.DURATION.parse(text, "--duration")
    assert repr(text) in str(refused.value)


@pytest.mark.parametrize(
    ("text", "expected_ms"),
    [("0:100", (0.0, 100.0)), ("20", (20.0, 20.0)), ("0.5:1.5", (0.5, 1.5)), ("0:0", (0.0, 0.0))],
)
def test_delay_ranges_are_understood(text: str, expected_ms: tuple[float, float]) -> None:
    """LOW:HIGH in ms; one number is both."""
    assert limits.DELAY_MS.parse(text, "--delay") == expected_ms


@pytest.mark.parametrize("text", ["", ":", "100:0", "-1:5", "a:b", "0:60001", "nan:nan", "1:2:3"])
def test_a_delay_range_that_is_none_is_refused_by_name(text: str) -> None:
    """A refusal names the option, what was given, and the limit."""
    with pytest.raises(UsageError, match=r"--delay.*0:60,000"):
        limits.DELAY_MS.parse(text, "--delay")


@given(st.integers())
def test_whole_numbers_are_taken_exactly_within_their_range(value: int) -> None:
    """Both ends are allowed, and nothing beyond them."""
    limit = limits.Whole(-3, 7)
    if -3 <= value <= 7:
        assert limit.parse(str(value), "--n") == value
    else:
        with pytest.raises(UsageError, match="from -3 to 7"):
            limit.parse(str(value), "--n")


@pytest.mark.parametrize("text", ["x", "", "nan", "inf", "0", "100001"])
def test_a_rate_that_is_none_is_refused_by_name(text: str) -> None:
    """Not-a-number and infinity are no rates either."""
    with pytest.raises(UsageError, match="--rate"):
        limits.RATE.parse(text, "--rate")


@pytest.mark.parametrize(
    ("text", "expected"), [("64", (64, 64)), ("27:1048576", (27, 1_048_576)), ("64:64", (64, 64))]
)
def test_value_sizes_are_one_or_a_range(text: str, expected: tuple[int, int]) -> None:
    """One number is all sizes; a range has both ends."""
    assert limits.VALUE_BYTES.parse(text, "--value-bytes") == expected


@pytest.mark.parametrize("text", ["", "26", "65:64", "64:1048577", "64.5", "a:b", ":"])
def test_a_bad_value_size_is_refused_by_name(text: str) -> None:
    """The option, what was given, and what may be."""
    with pytest.raises(UsageError, match=r"--value-bytes was given .* a size in bytes from 27"):
        limits.VALUE_BYTES.parse(text, "--value-bytes")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000",
        "https://node.example",
        "http://[::1]:80",
        "http://b\u00fccher:1",
        "http://proxy:1/node",
        "HTTP://N:1",
    ],
)
@pytest.mark.parametrize("end", ["", "/"])
def test_a_url_of_a_node_is_taken_without_a_slash_at_its_end(url: str, end: str) -> None:
    """A path is put behind it."""
    assert limits.parse_url(url + end, "--node") == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "here",
        "127.0.0.1:8000",
        "ftp://h",
        "http://",
        "http://:80",
        "http:///path",
        "http://h:80a",
        "http://h:0",
        "http://h:99999",
        "http://h:-1",
        "http://[::1",
        "http://a..b:80",
        f"http://{'a' * 64}:80",
        "http://a b:80",
        "http://h:1\n",
        "http://h\x00:1",
        "http://h:1/?x=1",
        "http://h:1?",
        "http://h:1/#top",
    ],
)
def test_what_is_no_url_of_a_node_is_refused(text: str) -> None:
    """Nobody could be asked there: each of these would fail within a library, in its words."""
    with pytest.raises(
        UsageError, match=r"^--node was given .* the URL of a node, such as http://"
    ):
        limits.parse_url(text, "--node")


@pytest.mark.parametrize(
    "text",
    [
        "http://user:hunter2@h:1",
        "http://hunter2@h",
        "https://user:hunter2@h/",
        "http://user:hunter2@h:80a",
        "http://user:hunt/er2@h",
    ],
)
def test_a_password_in_a_url_is_refused_and_not_repeated(text: str) -> None:
    """What is taken goes into manifest and report, and what is refused to the terminal."""
    with pytest.raises(UsageError, match="CLUSTER_TOKEN") as refused:
        limits.parse_url(text, "--attach")
    assert "hunt" not in str(refused.value)


def test_a_load_goes_to_plain_http_only() -> None:
    """It is refused before k is set on a cluster that no trial could then reach."""
    assert limits.parse_load_url("http://h:1/", "--attach") == "http://h:1"
    with pytest.raises(UsageError, match="does not speak https"):
        limits.parse_load_url("https://h:1", "--attach")
