"""The search for the highest rate, on stores whose truth is known."""

from __future__ import annotations

import random
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration import saturation
from orchestration.audit import Evidence, audit
from orchestration.report.records import Figures, OperationRow, Parity, TrialRow
from orchestration.saturation import Answer, Attempt, Finding, Next, Search, next_step
from orchestration.thresholds import parse_threshold

if TYPE_CHECKING:
    from collections.abc import Callable

SEARCH = Search(
    precision=0.05,
    confirm=3,
    first_rate_per_s=100.0,
    lowest_rate_per_s=25.0,
    highest_rate_per_s=20_000.0,
)
# Within what the first rate may be, and beyond both of its ends.
rates = st.floats(5, 80_000)
searches = st.builds(
    Search,
    precision=st.floats(0.01, 0.5),
    confirm=st.integers(1, 6),
    first_rate_per_s=st.floats(30, 10_000),
    lowest_rate_per_s=st.floats(1, 30),
    highest_rate_per_s=st.floats(10_000, 100_000),
)


def find(search: Search, store: Callable[[float], Answer]) -> tuple[Finding, list[Attempt]]:
    """What a search finds on a store that answers by the rate, and the attempts it took."""
    attempts: list[Attempt] = []
    while isinstance(step := next_step(search, attempts), Next):
        assert len(attempts) < search.most_trials
        assert search.lowest <= step.rung <= search.highest
        answer = store(search.rate_per_s(step.rung))
        attempts.append(Attempt(step.rung, step.purpose, answer))
    return step, attempts


def exact(sustained_per_s: float, generator_per_s: float = 1e9) -> Callable[[float], Answer]:
    """A store without noise, behind a generator with a limit."""

    def answer(rate_per_s: float) -> Answer:
        if rate_per_s > generator_per_s:
            return "generator-bound"
        return "met" if rate_per_s <= sustained_per_s else "missed"

    return answer


def highest_by_walking(search: Search, store: Callable[[float], Answer]) -> int | None:
    """The slow obvious way: rung after rung from the lowest, until one is not met."""
    best = None
    for rung in range(search.lowest, search.highest + 1):
        if store(search.rate_per_s(rung)) != "met":
            break
        best = rung
    return best


@given(searches)
def test_rungs_rise_by_no_more_than_the_precision(search: Search) -> None:
    """Each rate is above the one below it, and the doubling doubles."""
    steps = range(search.lowest, search.highest)
    for rung in steps:
        low, high = search.rate_per_s(rung), search.rate_per_s(rung + 1)
        assert 1 < high / low <= 1 + search.precision + 0.001
    assert search.rate_per_s(search.doubling) == pytest.approx(
        2 * search.first_rate_per_s, rel=2e-3
    )
    assert search.rate_per_s(search.lowest) >= search.lowest_rate_per_s * 0.999
    assert search.rate_per_s(search.highest) <= search.highest_rate_per_s * 1.001


@given(searches, rates)
def test_search_without_noise_finds_what_walking_finds(search: Search, sustained: float) -> None:
    """The highest rung that is met, confirmed by all trials, and the one above it is not."""
    store = exact(sustained)
    found, attempts = find(search, store)
    expected = highest_by_walking(search, store)
    assert found.rung == expected
    if expected is None:
        assert (found.kind, found.above) == ("none", search.lowest)
    elif expected == search.highest:
        assert (found.kind, found.above) == ("at-least", None)
    else:
        assert (found.kind, found.above, found.why_above) == ("sustained", expected + 1, "missed")
    if expected is not None:
        assert found.votes == (search.confirm, search.confirm)
    assert len(attempts) == saturation.trials_to_find(search, sustained)
    # One confirmation, and a halving for each bit of the gap.
    halvings = saturation.AGREEING * (search.doubling - 1).bit_length()
    spared = (saturation.CONFIRMATIONS - 1) * (halvings + search.confirm)
    assert len(attempts) <= search.most_trials - spared


@given(searches, rates, rates)
def test_generator_that_gives_up_first_is_not_taken_for_the_store(
    search: Search, sustained: float, generator: float
) -> None:
    """Below the generator's limit the store is blamed, at it the result is "at least"."""
    found, _ = find(search, exact(sustained, generator))
    limited = highest_by_walking(search, exact(generator))
    if found.kind == "at-least":
        assert found.rung == limited
        assert sustained >= search.rate_per_s(found.rung or 0)
        assert found.why_above in {"generator-bound", None}
    if found.kind in {"sustained", "none"}:
        assert generator >= search.rate_per_s(found.above or 0)
    if found.kind == "void":
        assert generator < search.rate_per_s(search.lowest)


@given(searches, rates, st.floats(0, 0.3), st.randoms(use_true_random=False))
def test_noise_within_a_band_moves_the_result_within_that_band(
    search: Search, sustained: float, width: float, chance: random.Random
) -> None:
    """Latency grows with the rate and is off by a bounded share, in the worst order.

    What is always met is never taken for too much, nor what is always missed for the result.
    """
    always_met, always_missed = sustained / (1 + width), sustained * (1 + width)

    def store(rate_per_s: float) -> Answer:
        if always_met < rate_per_s < always_missed:
            return "met" if chance.random() < 0.5 else "missed"
        return "met" if rate_per_s <= always_met else "missed"

    found, _ = find(search, store)
    low = highest_by_walking(search, exact(always_met))
    if found.rung is None:
        assert low is None
    else:
        assert low is None or found.rung >= low
        assert search.rate_per_s(found.rung) < always_missed * 1.001
    if found.kind == "unsettled":
        fuzzy = [
            rung
            for rung in range(search.lowest, search.highest + 1)
            if always_met < search.rate_per_s(rung) < always_missed
        ]
        assert len(fuzzy) >= saturation.CONFIRMATIONS / 2


def queue(chance: random.Random, capacity_per_s: float) -> Callable[[float], Answer]:
    """A store that queues, held against p99 < 50 ms; its p99 is off by 10% each time."""

    def answer(rate_per_s: float) -> Answer:
        busy = rate_per_s / capacity_per_s
        # Past its capacity a backlog grows for as long as the trial lasts.
        true_ms = 5.0 / (1 - busy) if busy < 0.999 else 5_000.0 * busy
        return "met" if true_ms * chance.lognormvariate(0, 0.1) < 50 else "missed"

    return answer


def disturbed(
    chance: random.Random, bad: Answer, store: Callable[[float], Answer]
) -> Callable[[float], Answer]:
    """The store, but for one trial in twenty."""
    return lambda rate_per_s: bad if chance.random() < 0.05 else store(rate_per_s)


def test_knee_of_a_noisy_queue_is_found_within_the_precision() -> None:
    """With 10% noise on each p99, 95 of 100 searches end within two rungs of the truth."""
    chance = random.Random(7)
    errors = []
    for _ in range(100):
        capacity_per_s = chance.uniform(80, 15_000)
        found, _ = find(SEARCH, queue(chance, capacity_per_s))
        # 5 / (1 - busy) = 50 at 90% of the capacity.
        truth = highest_by_walking(SEARCH, exact(0.9 * capacity_per_s))
        assert found.kind == "sustained"
        errors.append(abs((found.rung or 0) - (truth or 0)))
    assert sum(error <= 2 for error in errors) >= 95
    assert max(errors) <= 3


@pytest.mark.parametrize("bad", ["missed", "generator-bound", "void"])
def test_trials_that_are_disturbed_now_and_then_do_not_spoil_the_result(bad: Answer) -> None:
    """Of 200 searches in which one trial in twenty goes wrong, 19 in 20 find the very rung."""
    chance = random.Random(11)
    right = 0
    for _ in range(200):
        sustained = chance.uniform(100, 15_000)
        truth = exact(sustained)
        found, _ = find(SEARCH, disturbed(chance, bad, truth))
        right += found.rung == highest_by_walking(SEARCH, truth) and found.kind == "sustained"
    assert right >= 190


def test_search_that_believed_each_trial_would_be_spoilt() -> None:
    """The promise above is one: with single trials a tenth of the searches would go astray."""
    chance = random.Random(11)
    right = 0
    for _ in range(200):
        sustained = chance.uniform(100, 15_000)
        low, high = SEARCH.lowest, SEARCH.highest
        while high - low > 1:
            middle = (low + high) // 2
            is_met = chance.random() >= 0.05 and SEARCH.rate_per_s(middle) <= sustained
            low, high = (middle, high) if is_met else (low, middle)
        right += low == highest_by_walking(SEARCH, exact(sustained))
    assert right < 180


answers = st.sampled_from(["met", "missed", "generator-bound", "void"])


@given(searches, st.data())
def test_any_answers_lead_to_an_end_within_the_stated_number(
    search: Search, data: st.DataObject
) -> None:
    """Whatever trials say, the search ends, and a report can follow it again."""
    found, attempts = find(search, lambda _: data.draw(answers))
    assert len(attempts) <= search.most_trials
    assert saturation.follow(search, [attempt.answer for attempt in attempts]) == attempts
    if found.kind in {"sustained", "at-least"}:
        met, votes = found.votes
        assert votes == search.confirm
        assert 2 * met > votes
        assert found.above is None or found.above == (found.rung or 0) + 1


def test_confirmation_that_fails_sends_the_search_down() -> None:
    """A rate that was met once by luck is not the result; the next lower one is confirmed anew."""
    luck = iter(["met"])

    def store(rate_per_s: float) -> Answer:
        if 1_000 < rate_per_s < 1_100:
            return next(luck, "missed")  # type: ignore[return-value] # met
        return "met" if rate_per_s <= 1_000 else "missed"

    found, attempts = find(SEARCH, store)
    assert found.kind == "sustained"
    assert SEARCH.rate_per_s(found.rung or 0) <= 1_000 < SEARCH.rate_per_s((found.rung or 0) + 1)
    confirmed = dict.fromkeys(a.rung for a in attempts if a.purpose == "confirm")
    assert list(confirmed) == [(found.rung or 0) + 1, found.rung]


def test_store_that_breaks_each_confirmation_leaves_the_search_unsettled() -> None:
    """The search gives up after the stated number of trials and says so."""
    attempts: list[Attempt] = []
    while isinstance(step := next_step(SEARCH, attempts), Next):
        answer: Answer = "met" if step.purpose == "search" else "missed"
        attempts.append(Attempt(step.rung, step.purpose, answer))
    assert step.kind == "unsettled"
    assert len(attempts) == SEARCH.most_trials


def test_confirmation_by_most_is_told_with_its_votes() -> None:
    """One of three confirming trials may be disturbed; the report says 2 of 3."""
    attempts = saturation.follow(SEARCH, _climb_to_confirmation())
    for answer in ("met", "missed", "met"):
        step = next_step(SEARCH, attempts)
        assert isinstance(step, Next)
        assert step.purpose == "confirm"
        attempts.append(Attempt(step.rung, step.purpose, answer))  # type: ignore[arg-type] # a literal
    found = next_step(SEARCH, attempts)
    assert isinstance(found, Finding)
    assert (found.kind, found.votes) == ("sustained", (2, 3))


def test_confirming_trial_that_says_nothing_is_repeated() -> None:
    """It is neither for nor against the rate, and two in a row end the search."""
    base = _climb_to_confirmation()
    attempts = saturation.follow(SEARCH, [*base, "void", "met", "met", "met"])
    found = next_step(SEARCH, attempts)
    assert isinstance(found, Finding)
    assert (found.kind, found.votes) == ("sustained", (3, 3))
    found = next_step(SEARCH, saturation.follow(SEARCH, [*base, "met", "void", "void"]))
    assert isinstance(found, Finding)
    assert found.kind == "void"


def test_confirmation_that_cannot_succeed_any_more_is_cut_short() -> None:
    """Two of three against it are enough."""
    attempts = saturation.follow(SEARCH, [*_climb_to_confirmation(), "missed", "missed"])
    step = next_step(SEARCH, attempts)
    assert isinstance(step, Next)
    assert step.rung < attempts[-1].rung


@pytest.mark.parametrize(
    ("votes", "kind"),
    [
        (["missed", "missed"], "sustained"),
        (["missed", "generator-bound", "missed"], "sustained"),
        (["generator-bound", "missed", "generator-bound"], "at-least"),
        (["missed", "generator-bound", "void", "missed"], "sustained"),
        (["missed", "generator-bound", "met"], "at-least"),
        (["met", "missed", "generator-bound", "missed"], "sustained"),
        (["void", "missed", "missed"], "sustained"),
        (["void", "missed", "void", "missed"], "sustained"),
        (["missed", "void", "void"], "void"),
    ],
)
def test_failed_confirmation_is_laid_to_what_most_of_its_trials_say(
    votes: list[Answer], kind: str
) -> None:
    """A tie gets one more trial, and then the store the benefit of the doubt; void is no vote."""
    base = _climb_to_confirmation()
    rung = saturation.follow(SEARCH, [*base, "met"])[-1].rung
    given = iter([*base, *votes])
    sustained = SEARCH.rate_per_s(rung - 1)
    found, attempts = find(
        SEARCH, lambda rate: next(given, "met" if rate <= sustained else "missed")
    )
    assert found.kind == kind
    of_rung = [each.answer for each in attempts if (each.rung, each.purpose) == (rung, "confirm")]
    assert of_rung == votes


@pytest.mark.parametrize(
    ("given", "kind", "above"),
    [
        ([], "unfinished", None),
        (["met", "met"], "unfinished", None),
        (["missed", "missed"], "unfinished", 0),
    ],
)
def test_what_is_known_of_an_unfinished_search(
    given: list[Answer], kind: str, above: int | None
) -> None:
    """A search that was stopped tells how far it came."""
    found = saturation.known(SEARCH, saturation.follow(SEARCH, given))
    assert (found.kind, found.above) == (kind, above)
    assert found.rung == ({2: SEARCH.doubling}.get(len(given)) if "met" in given else None)


def test_answers_beyond_the_end_of_a_search_are_left_out() -> None:
    """More trials than a search asked for, as a changed manifest would have them, do no harm."""
    found, attempts = find(SEARCH, exact(1_000))
    longer = saturation.follow(SEARCH, [*(attempt.answer for attempt in attempts), "met", "met"])
    assert longer == attempts
    assert next_step(SEARCH, longer) == found


def row(**changes: Any) -> TrialRow:
    """A trial of 1,000 writes with a p99 of 40 ms."""
    values = {
        "scenario": "saturate",
        "k": 1,
        "block": 0,
        "followers": 5,
        "samples": 1_000,
        "response_ms": Figures(10, 11, 30, 40, 80),
        "parity": Parity("match"),
    }
    return TrialRow(**values | changes)  # type: ignore[arg-type] # of many types


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({}, "met"),
        ({"response_ms": Figures(10, 11, 30, 50, 80)}, "missed"),
        ({"response_ms": Figures()}, "void"),
        ({"errors": {"timeout": 10}}, "met"),
        ({"errors": {"timeout": 11}}, "missed"),
        ({"stamp": "invalid", "reason": "errors", "errors": {"timeout": 500}}, "missed"),
        ({"stamp": "invalid", "reason": "it ended early", "samples": 0}, "void"),
        (
            {"stamp": "invalid", "reason": saturation.ENDED_EARLY, "errors": {"timeout": 500}},
            "void",
        ),
        ({"stamp": "invalid", "reason": "replicas differ"}, "void"),
        ({"stamp": "invalid", "errors": {"x": 500}, "parity": Parity("mismatch")}, "void"),
        ({"stamp": "generator-bound", "errors": {"timeout": 500}}, "generator-bound"),
        ({"samples": 99}, "void"),
        ({"samples": 100}, "met"),
        ({"operations": {"write": OperationRow(99), "read": OperationRow(901)}}, "void"),
        ({"samples": 99, "response_ms": Figures(10, 11, 30, 50, 80)}, "void"),
        ({"stamp": "saturated", "reason": "dropped"}, "missed"),
        ({"stamp": "generator-bound", "reason": "late"}, "generator-bound"),
        ({"stamp": "generator-bound", "response_ms": Figures(1, 1, 1, 99, 99)}, "generator-bound"),
    ],
)
def test_a_trial_answers_by_stamp_errors_and_objective(
    changes: dict[str, Any], answer: Answer
) -> None:
    """Only an ok trial can meet it; what the generator spoilt is not held against the store."""
    assert saturation.judge(row(**changes), parse_threshold("p99 < 50ms", "--slo")) == answer


def test_early_end_is_known_by_the_audits_reason() -> None:
    """A trial's row tells it by nothing else."""
    evidence = dict.fromkeys((field.name for field in fields(Evidence)), 0)
    ended = Evidence(**evidence | {"has_ended_early": True, "parity": "match"})  # type: ignore[arg-type] # of many types
    assert audit(ended) == ("invalid", saturation.ENDED_EARLY)


def _climb_to_confirmation() -> list[Answer]:
    """The answers of a store of 1,000/s, up to the first confirming trial."""
    _, attempts = find(SEARCH, exact(1_000))
    return [attempt.answer for attempt in attempts if attempt.purpose == "search"]
