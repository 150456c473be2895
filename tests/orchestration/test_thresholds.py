"""Objectives in a user's words: what is understood, refused, and found in a run."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration import thresholds
from orchestration.errors import UsageError
from orchestration.report.records import Figures, Manifest, Parity, Run, TrialRow
from orchestration.report.summary import Cell, summarise
from orchestration.thresholds import Outcome, Threshold, parse_threshold

NAME = "--threshold"


def row(k: int, block: int = 0, **changes: Any) -> TrialRow:
    """A trial of 1,000 writes whose p99 is 40 ms plus a millisecond a block."""
    values = {
        "scenario": "writes",
        "k": k,
        "block": block,
        "followers": 5,
        "rate": 100.0,
        "samples": 1_000,
        "achieved_rate": 99.0,
        "response_ms": Figures(10, 11, 30, 40 + block, 80),
        "parity": Parity("match"),
    }
    return TrialRow(**values | changes)  # type: ignore[arg-type] # of many types


def cells(*rows: TrialRow) -> list[Cell]:
    """The cells of a run of these trials."""
    return summarise(Run(Manifest(run="writes/now", followers=5), list(rows))).cells


def outcome(text: str, *rows: TrialRow) -> Outcome:
    """What a run of these trials says to the threshold in this text."""
    return thresholds.evaluate(parse_threshold(text, NAME), cells(*rows))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("p99 < 50ms at k=3", Threshold("p99", "<", 50.0, "ms", (3,))),
        ("errors<1%", Threshold("errors", "<", 1.0, "%")),
        (" rate  >95/s at  k=0-2", Threshold("rate", ">", 95.0, "/s", (0, 1, 2))),
        ("mean <= .5 s at k = 5 , 0 - 2", Threshold("mean", "<=", 0.5, "s", (0, 1, 2, 5))),
        ("max >= 250us", Threshold("max", ">=", 250.0, "us")),
    ],
)
def test_objectives_are_understood(text: str, expected: Threshold) -> None:
    """Quantity, comparison, number, unit and cells, with spaces wherever one likes them."""
    assert parse_threshold(text, NAME) == expected


kinds = st.one_of(
    st.tuples(
        st.sampled_from(["mean", "p50", "p95", "p99", "max"]),
        st.sampled_from(["us", "ms", "s"]),
        st.floats(0, 3_600),
    ),
    st.tuples(st.just("errors"), st.just("%"), st.floats(0, 100)),
    st.tuples(st.just("rate"), st.just("/s"), st.floats(0, 100_000)),
)
objectives = st.builds(
    lambda kind, comparison, quorums: Threshold(
        kind[0], comparison, round(kind[2], 9), kind[1], quorums and tuple(sorted(quorums))
    ),
    kinds,
    st.sampled_from(["<", "<=", ">", ">="]),
    st.none() | st.sets(st.integers(0, 20), min_size=1),
)


@given(objectives)
def test_an_objectives_own_text_says_the_same(objective: Threshold) -> None:
    """What a report shows can be pasted into a scenario."""
    assert parse_threshold(objective.text, NAME) == objective


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        ("", "its end", "one of mean, p50, p95, p99, max, errors, rate"),
        ("p90 < 5ms", "character 1 ('p90 < 5ms')", "one of mean"),
        ("p999 < 5ms", "character 1 ('p999 < 5ms')", "one of mean"),
        ("p99 = 5ms", "character 5 ('= 5ms')", "<, <=, > or >="),
        ("p99 << 50ms", "character 6 ('< 50ms')", "a number"),
        ("p99 < -5ms", "character 7 ('-5ms')", "a number"),
        ("p99 < infms", "character 7 ('infms')", "a number"),
        ("p99 < 50", "its end", "a unit of p99 (us, ms, s)"),
        ("p99 < 50 %", "character 10 ('%')", "a unit of p99"),
        ("p99 < 50msec", "character 9 ('msec')", "a unit of p99"),
        ("errors < 1", "its end", "a unit of errors (%)"),
        ("rate > 5ms", "character 9 ('ms')", "a unit of rate (/s)"),
        ("p99 < 5ms k=3", "character 11 ('k=3')", "'at k=…' or the end"),
        ("p99 < 5ms at 3", "character 14 ('3')", "k="),
        ("p99 < 5ms at k=", "its end", "write quorums from 0 to 20"),
        ("p99 < 5ms at k=3-1", "character 16 ('3-1')", "write quorums from 0 to 20"),
        ("p99 < 5ms at k=21", "character 16 ('21')", "write quorums from 0 to 20"),
        ("p99 < 5ms at k=1 2", "character 18 ('2')", "the end"),
    ],
)
def test_a_text_that_is_no_objective_is_refused_at_its_place(
    text: str, place: str, expected: str
) -> None:
    """The sentence shows the text, where it went wrong, what belongs there, and an example."""
    with pytest.raises(UsageError) as refused:
        parse_threshold(text, NAME)
    assert f"{NAME} was given {text!r}, where {place} should be {expected}" in str(refused.value)
    assert "write it like 'p99 < 50ms at k=3'." in str(refused.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("p99 < 3601s", "p99 is at most 3,600,000ms"),
        ("errors < 101%", "errors is at most 100%"),
        ("rate > 100001/s", "rate is at most 100,000/s"),
        ("p99 < 5ms" + " " * 300, "at most 200 characters"),
    ],
)
def test_an_objective_beyond_all_measure_is_refused(text: str, reason: str) -> None:
    """A limit that nothing could reach is a slip of the pen."""
    with pytest.raises(UsageError, match=reason):
        parse_threshold(text, NAME)


@given(st.text(max_size=250))
def test_any_text_is_an_objective_or_a_usage_error(text: str) -> None:
    """Nothing that a user writes ends in another error."""
    with suppress(UsageError):
        assert parse_threshold(text, NAME).text


def test_equal_objectives_count_once_and_too_many_are_refused() -> None:
    """Their order stays, and a list has an end."""
    texts = ["p99 < 5ms", "errors < 1%", "p99<5 ms"]
    assert [each.text for each in thresholds.parse_thresholds(texts, NAME)] == [
        "p99 < 5ms",
        "errors < 1%",
    ]
    with pytest.raises(UsageError, match="101 thresholds; at most 100"):
        thresholds.parse_thresholds(["p99 < 5ms"] * 101, NAME)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("p99 < 41ms", "breached"),
        ("p99 <= 41ms", "passed"),
        ("p99 > 41ms", "breached"),
        ("p99 >= 41ms", "passed"),
        ("p99 < 0.0411s", "passed"),
        ("p99 < 40900us", "breached"),
        ("mean < 11ms", "passed"),
        ("p50 < 11ms", "breached"),
        ("p95 < 31ms", "passed"),
        ("max < 80ms", "breached"),
        ("rate > 98/s", "passed"),
        ("errors < 2%", "passed"),
        ("errors < 1%", "breached"),
    ],
)
def test_a_figure_is_held_against_the_limit_in_its_unit(text: str, status: str) -> None:
    """The mean over trials decides; 31 of 3,031 requests failed."""
    errors = {"timeout": 30, "outcome_unknown": 1}
    rows = [row(1, 0, errors=errors), row(1, 1), row(1, 2)]
    assert outcome(text, *rows).status == status


def test_a_check_tells_what_was_measured_and_how_surely() -> None:
    """The estimate in the threshold's unit, with its interval over trials."""
    found = outcome("p99 < 0.05s", row(1, 0), row(1, 1), row(1, 2))
    (check,) = found.checks
    assert (found.limit, found.unit, found.text) == (50.0, "ms", "p99 < 0.05s")
    assert check.measured == 41.0
    assert check.ci95 is not None
    low, high = check.ci95
    assert low + high == pytest.approx(82.0)
    assert 38 < low < 40
    assert (check.k, check.rate, check.scenario, check.reason) == (1, 100.0, "writes", "")


def test_the_worst_cell_decides_and_the_others_are_told() -> None:
    """A breach outweighs what is unknown, and that outweighs what passed."""
    slow = row(5, response_ms=Figures(10, 11, 30, 90, 90))
    few = row(2, samples=99)
    assert outcome("p99 < 50ms", row(0), few, slow).status == "breached"
    assert outcome("p99 < 50ms at k=0,2", row(0), few, slow).status == "unknown"
    assert outcome("p99 < 50ms at k=0", row(0), few, slow).status == "passed"
    statuses = [check.status for check in outcome("p99 < 50ms", row(0), few, slow).checks]
    assert statuses == ["passed", "unknown", "breached"]


@pytest.mark.parametrize(
    ("changes", "text", "reason"),
    [
        ({"samples": 99}, "p99 < 50ms", "no p99: it takes 100 acknowledged writes a trial"),
        ({"samples": 0}, "p99 < 50ms", "no latency is quoted: a trial had no acknowledged write"),
        ({"samples": 0}, "errors < 1%", "no request came to an end"),
        ({"response_ms": Figures(1, 2, 3, 4, None)}, "max < 9ms", "no max was recorded"),
        ({"stamp": "saturated", "reason": "too slow"}, "p99 < 50ms", "saturated: too slow"),
        ({"stamp": "generator-bound", "reason": "late"}, "rate > 9/s", "generator-bound: late"),
        ({"stamp": "invalid", "reason": "ended"}, "errors < 1%", "invalid: ended"),
        ({"achieved_rate": None}, "rate > 9/s", "no request came to an end"),
    ],
)
def test_what_may_not_be_quoted_is_unknown_for_a_reason(
    changes: dict[str, Any], text: str, reason: str
) -> None:
    """Neither passed nor breached: the stamp or the note says why."""
    (check,) = outcome(text, row(1, **changes)).checks
    assert (check.status, check.measured, check.ci95) == ("unknown", None, None)
    assert check.reason.startswith(reason)
    assert not check.reason.endswith(".")


@pytest.mark.parametrize("text", ["rate > 95/s", "errors < 1%"])
def test_a_store_that_falls_behind_breaches_what_is_about_rate_and_errors(text: str) -> None:
    """Its latencies may not be quoted, but that it did not keep up is what was asked."""
    behind = row(1, stamp="saturated", reason="x", achieved_rate=61.0, errors={"timeout": 40})
    assert outcome(text, behind).status == "breached"


@pytest.mark.parametrize(
    ("text", "status"), [("errors < 1%", "breached"), ("errors < 9%", "unknown")]
)
def test_requests_that_failed_count_in_a_cell_that_they_made_invalid(
    text: str, status: str
) -> None:
    """A breach is one, whatever else is wrong; that so few failed is not known of such a cell."""
    bad = row(1, stamp="invalid", reason="50 of 1,050 requests failed", errors={"timeout": 50})
    found = outcome(text, bad)
    assert found.status == status
    assert (found.checks[0].measured is None) == (status == "unknown")
    assert outcome("rate > 9/s", bad).status == "unknown"


def test_a_cell_that_was_not_measured_is_unknown() -> None:
    """A name that matches nothing does not pass in silence."""
    assert outcome("p99 < 50ms").reason == "no cell was measured"
    found = outcome("p99 < 50ms at k=1-4", row(1), row(3))
    assert (found.status, found.reason) == ("unknown", "no cell with k=2,4 was measured")
    assert [check.status for check in found.checks] == ["passed", "passed"]


@pytest.mark.parametrize(
    ("texts", "code"),
    [
        ([], 0),
        (["p99 < 50ms"], 0),
        (["p99 < 50ms", "p99 < 50ms at k=4"], 2),
        (["p99 < 50ms at k=4", "p99 < 5ms", "p99 < 50ms"], 99),
    ],
)
def test_the_worst_threshold_decides_the_exit_code(texts: list[str], code: int) -> None:
    """99 breached, 2 unknown, 0 none of these."""
    assert thresholds.exit_code(thresholds.evaluate_all(texts, cells(row(1)))) == code


def test_share_of_errors_is_of_what_came_to_an_end() -> None:
    """Neither successes nor failures: there is no share."""
    assert thresholds.error_share({"a": 1, "b": 2}, 97) == 0.03
    assert thresholds.error_share({}, 5) == 0.0
    assert thresholds.error_share({}, 0) is None
