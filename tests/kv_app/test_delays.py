"""Link delays: in range, reproducible, uniform, independent; and a schedule that is never early."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from kv_app.delays import NS_PER_MS, DelayKind, DelayModel, LinkSchedule

DRAWS = 5_000
NO_LIMIT = 1000
FOLLOWERS = [f"follower{number}" for number in range(1, 6)]
# The seeds are fixed, so a test below either always passes or always fails; 0.001 leaves a fair
# generator a chance of 1 in 1000 to be refused when a seed or the generator changes.
ALPHA = 0.001

models = st.builds(
    lambda low, spread, seed: DelayModel(low, low + spread, seed),
    st.floats(min_value=0, max_value=1000),
    st.floats(min_value=0, max_value=1000),
    st.integers(min_value=0, max_value=2**63 - 1),
)
arguments = st.tuples(
    st.text(max_size=10),
    st.integers(min_value=1, max_value=2**40),
    st.integers(min_value=1, max_value=2**40),
)


@given(models, arguments)
def test_draw_of_any_model_lies_in_its_range(
    model: DelayModel, where: tuple[str, int, int]
) -> None:
    """No delay is shorter than the least or longer than the most that was asked for."""
    delay_ns = model.draw_ns(*where)
    assert isinstance(delay_ns, int)
    assert math.floor(model.min_ms * NS_PER_MS) <= delay_ns
    assert delay_ns <= math.ceil(model.max_ms * NS_PER_MS)


@given(models, arguments)
def test_draw_made_again_is_the_same(model: DelayModel, where: tuple[str, int, int]) -> None:
    """Whoever knows the arguments can compute the delay again, whatever was drawn in between."""
    first = model.draw_ns(*where)
    model.draw_ns("another", 1, 1)
    again = DelayModel(model.min_ms, model.max_ms, model.seed, DelayKind.FIFO)
    assert again.draw_ns(*where) == first


def test_draw_of_known_arguments_never_changes() -> None:
    """The draws are a promise across versions: a recorded run can be computed again."""
    model = DelayModel(0.0, 100.0, seed=7)
    drawn = [model.draw_ns(follower, 1, seq) for follower in ("a", "b") for seq in (1, 2)]
    assert drawn == [32_437_928, 18_697_101, 17_639_468, 25_855_697]


def test_draw_without_spread_is_the_constant_itself() -> None:
    """Equal bounds give that delay; only bounds of 0 make the model a zero one."""
    assert DelayModel(2.5, 2.5, 1).draw_ns("a", 1, 1) == 2_500_000
    assert not DelayModel(2.5, 2.5, 1).is_zero
    assert DelayModel().draw_ns("a", 1, 1) == 0
    assert DelayModel().is_zero


def fractions(seed: int, follower: str, epoch: int = 1) -> np.ndarray:
    """Returns the draws of many entries as parts of their range."""
    model = DelayModel(0.0, 100.0, seed)
    drawn_ns = [model.draw_ns(follower, epoch, seq) for seq in range(1, DRAWS + 1)]
    return np.array(drawn_ns) / (100 * NS_PER_MS)


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_draws_of_one_link_are_uniform(seed: int) -> None:
    """Kolmogorov and Smirnov find no difference from the uniform distribution."""
    assert stats.kstest(fractions(seed, "follower1"), "uniform").pvalue > ALPHA


def test_draws_of_different_links_epochs_and_seqs_are_not_correlated() -> None:
    """Each entry's delay on each link is a draw of its own."""
    columns = [fractions(3, follower) for follower in FOLLOWERS]
    columns += [fractions(3, "follower1", epoch=2), fractions(4, "follower1")]
    columns += [np.roll(columns[0], lag) for lag in (1, 2, 3)]
    correlations = np.corrcoef(columns)[np.triu_indices(len(columns), k=1)]
    # Of independent columns a correlation is about normal with a deviation of 1/sqrt(draws).
    bound = stats.norm.isf(ALPHA / 2 / len(correlations)) / math.sqrt(DRAWS)
    assert np.abs(correlations).max() < bound


def test_draws_of_the_kth_link_are_the_order_statistic_of_independent_ones() -> None:
    """The k-th smallest of five delays is distributed as Beta(k, 6 - k), which theory builds on."""
    ordered = np.sort([fractions(11, follower) for follower in FOLLOWERS], axis=0)
    for k, values in enumerate(ordered, start=1):
        assert stats.kstest(values, stats.beta(k, 6 - k).cdf).pvalue > ALPHA


# --- the schedule of one link -----------------------------------------------------------------

due_times = st.lists(st.integers(min_value=0, max_value=50), max_size=30)


@given(
    due_times,
    st.lists(st.integers(min_value=0, max_value=60), max_size=8),
    st.integers(min_value=1, max_value=35),
)
def test_schedule_hands_out_what_sorting_would_and_never_early(
    due_ns: list[int], looks_ns: list[int], limit: int
) -> None:
    """By due time, equal ones in the order in which they came, each once it is due and not before.

    No look gets more than its limit; the rest comes with the next. The items that are
    handed out are their places in the list.
    """
    schedule: LinkSchedule[int] = LinkSchedule()
    for item, due in enumerate(due_ns):
        schedule.push(item, due)
    remaining = sorted(range(len(due_ns)), key=lambda item: (due_ns[item], item))
    for now_ns in sorted(looks_ns):
        expected = [item for item in remaining if due_ns[item] <= now_ns][:limit]
        assert schedule.pop_due(now_ns, limit) == expected
        remaining = remaining[len(expected) :]
        assert len(schedule) == len(remaining)
        assert schedule.next_due_ns() == (due_ns[remaining[0]] if remaining else None)


pushes = st.lists(
    st.one_of(
        st.tuples(st.integers(min_value=0, max_value=10), st.booleans()),
        st.none(),  # a look at the schedule, a little later each time
    ),
    max_size=40,
)


@example([(10, False), (0, True), None])
@given(pushes)
def test_schedule_of_a_fifo_link_never_lets_an_entry_overtake(
    steps: list[tuple[int, bool] | None],
) -> None:
    """An item that is to come after all before it is due no earlier than any of them was."""
    schedule: LinkSchedule[int] = LinkSchedule()
    due_ns: list[int] = []
    sent: list[tuple[int, int]] = []  # item, when
    for now_ns, step in enumerate(steps):
        if step is None:
            sent += [(item, now_ns) for item in schedule.pop_due(now_ns, NO_LIMIT)]
            continue
        due, is_ordered = step
        schedule.push(len(due_ns), due, after_all_before=is_ordered)
        due_ns.append(max([due, *due_ns]) if is_ordered else due)
    sent += [(item, 1000) for item in schedule.pop_due(1000, NO_LIMIT)]
    assert sorted(item for item, _ in sent) == list(range(len(due_ns)))
    assert all(now_ns >= due_ns[item] for item, now_ns in sent)


@given(due_times)
def test_schedule_of_a_fifo_link_keeps_the_order_of_the_pushes(due_ns: list[int]) -> None:
    """An ordered link sends in order, whenever each would have been due alone."""
    schedule: LinkSchedule[int] = LinkSchedule()
    for item, due in enumerate(due_ns):
        schedule.push(item, due, after_all_before=True)
    assert schedule.pop_due(1000, NO_LIMIT) == list(range(len(due_ns)))


def test_schedule_cleared_forgets_its_items_and_its_order() -> None:
    """A new channel starts anew: what waited on the old one holds nobody up."""
    schedule: LinkSchedule[str] = LinkSchedule()
    schedule.push("old", 100, after_all_before=True)
    schedule.clear()
    assert len(schedule) == 0
    assert schedule.next_due_ns() is None
    schedule.push("new", 5, after_all_before=True)
    assert schedule.pop_due(5, NO_LIMIT) == ["new"]
