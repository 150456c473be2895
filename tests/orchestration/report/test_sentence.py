"""The sentence says what was measured, and nothing that was not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from orchestration.report.summary import summarise
from tests.orchestration.report import simulated

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestration.report.records import Run


def said(make_run: Callable[..., Run], rows: list[dict[str, Any]], **manifest: Any) -> str:
    """Return the sentence of these rows."""
    return summarise(make_run(rows, **manifest)).sentence


def test_sentence_compares_majority_with_smallest_k(make_run: Callable[..., Run]) -> None:
    """Of k 0 to 5 it takes 3, the paired difference at p50, and the k + 1 copies."""
    run = make_run(simulated.sweep())
    summary = summarise(run)
    difference = summary.cells[3].difference_ms
    assert difference is not None
    assert summary.sentence == (
        f"k=3 costs +{difference.p50:.1f} ms at p50 over k=0, and a write survives the loss of "
        "the leader and 2 followers while the others' memory lasts."
    )


def test_sentence_with_fsync_does_not_speak_of_memory(make_run: Callable[..., Run]) -> None:
    """Acks on disk outlive a power loss: the restriction goes."""
    sentence = said(make_run, simulated.sweep(), ack="fsync")
    assert sentence.endswith("survives the loss of the leader and 2 followers.")


def test_sentence_without_k0_compares_with_the_smallest(make_run: Callable[..., Run]) -> None:
    """Of k 1, 2, 5 the largest stands for the missing majority, over k=1."""
    sentence = said(make_run, simulated.sweep([1, 2, 5]))
    assert sentence.startswith("k=5 costs +")
    assert "over k=1" in sentence
    assert "4 followers" in sentence
    assert "k=0" not in sentence


@pytest.mark.parametrize(
    ("k", "promise"),
    [(0, "may be lost with the leader"), (1, "the loss of the leader while"), (2, "1 follower ")],
)
def test_sentence_of_a_single_k_compares_with_nothing(
    make_run: Callable[..., Run], k: int, promise: str
) -> None:
    """With one k there is a response time and no cost."""
    sentence = said(make_run, simulated.sweep([k]))
    assert sentence.startswith(f"k={k} answers in ")
    assert promise in sentence
    assert "cost" not in sentence


def test_sentence_of_one_trial_admits_it(make_run: Callable[..., Run]) -> None:
    """A difference of one block has no interval, and the sentence says so."""
    assert "(one trial, no interval)" in said(make_run, simulated.sweep(trials=1))


def test_sentence_claims_no_cost_that_chance_explains(make_run: Callable[..., Run]) -> None:
    """Without delays the interval holds zero: no cost is claimed, the interval is told."""
    sentence = said(make_run, simulated.sweep(delay_ms=(0.0, 0.0)))
    assert "no measurable cost" in sentence
    assert "costs" not in sentence


def test_sentence_passes_over_a_cell_that_is_not_ok(make_run: Callable[..., Run]) -> None:
    """If the majority's cell is saturated, the largest that may be quoted is taken."""
    rows = simulated.sweep()
    bad = [row | {"stamp": "saturated", "reason": "x"} if row["k"] == 3 else row for row in rows]
    assert said(make_run, bad).startswith("k=5 costs +")


def test_sentence_of_nothing_says_so(make_run: Callable[..., Run]) -> None:
    """Without trials, and without a quotable cell, nothing is claimed."""
    assert said(make_run, []).startswith("No trial was finished")
    rows = simulated.sweep([0, 1], stamp="invalid", reason="x")
    assert "k=0 invalid, k=1 invalid" in said(make_run, rows)
