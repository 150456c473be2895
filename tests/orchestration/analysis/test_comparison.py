"""Changes between two runs and what they are called, against scipy and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats as reference

from orchestration.analysis.comparison import Change, change, floor_ends, judge
from orchestration.analysis.noise import noise_floor
from tests.orchestration.analysis.simulated_runs import STATISTICS, Store, figures_of_run

per_trial = st.lists(st.floats(0.01, 1e5), min_size=2, max_size=12)
percents = st.floats(-90, 900)


def verdict(base: np.ndarray, new: np.ndarray) -> str:
    """What is said of one figure of two runs, without a calibration."""
    base_list, new_list = base.tolist(), new.tolist()
    return judge(change(base_list, new_list), noise_floor(base_list, new_list).percent)


@given(per_trial, per_trial)
def test_interval_is_that_of_welch_on_logarithms(base: list[float], new: list[float]) -> None:
    """Estimate and interval are those of scipy's t-test with unequal variances."""
    assume(min(np.std(np.log(base)), np.std(np.log(new))) > 1e-6)
    expected = reference.ttest_ind(np.log(new), np.log(base), equal_var=False)
    limits = expected.confidence_interval(0.95)
    assume(max(abs(limits.low), abs(limits.high)) < math.log(1000))
    found = change(base, new)
    ratio = np.mean(np.log(new)) - np.mean(np.log(base))
    assert found.estimate == pytest.approx(100 * np.expm1(ratio), rel=1e-6, abs=1e-6)
    assert found.low == pytest.approx(100 * np.expm1(limits.low), rel=1e-6, abs=1e-6)
    assert found.high == pytest.approx(100 * np.expm1(limits.high), rel=1e-6, abs=1e-6)


@given(per_trial, per_trial)
def test_change_back_undoes_the_change(base: list[float], new: list[float]) -> None:
    """NEW against BASE and BASE against NEW are reciprocal, interval and all."""
    there, back = change(base, new), change(new, base)
    for one, other in ((there.low, back.high), (there.estimate, back.estimate)):
        assert (1 + one / 100) * (1 + other / 100) == pytest.approx(1, rel=1e-6)


@given(per_trial, per_trial, st.floats(0.001, 1000))
def test_change_does_not_depend_on_the_unit(
    base: list[float], new: list[float], factor: float
) -> None:
    """Seconds or milliseconds: the change in percent is the same."""
    one = change(base, new)
    other = change([factor * value for value in base], [factor * value for value in new])
    assert (other.low, other.estimate, other.high) == pytest.approx(
        (one.low, one.estimate, one.high), rel=1e-5, abs=1e-5
    )


def test_equal_trials_have_a_change_of_no_width() -> None:
    """Runs without any spread neither divide by zero nor warn."""
    assert change([2.0, 2.0], [3.0, 3.0]) == Change(*[pytest.approx(50.0)] * 3)
    assert change([2.0, 2.0], [3.0, 3.0, 3.1]).low < 50 < change([2.0, 2.0], [3.0, 3.1]).high


def test_two_trials_that_differ_wildly_give_a_finite_interval() -> None:
    """Nothing is known then, and that can be written as JSON."""
    found = change([0.001, 1e6], [0.001, 1e6])
    assert (found.low, found.high) == (pytest.approx(-99.9), pytest.approx(99_900))


@pytest.mark.parametrize(
    ("base", "new", "complaint"),
    [
        ([1.0], [1.0, 2.0], "2 trials"),
        ([1.0, 2.0], [1.0], "2 trials"),
        ([1.0, 0.0], [1.0, 2.0], "above zero"),
        ([1.0, 2.0], [1.0, -2.0], "above zero"),
        ([1.0, math.nan], [1.0, 2.0], "finite"),
        ([1.0, 2.0], [1.0, math.inf], "finite"),
    ],
)
def test_change_of_what_has_no_ratio_is_refused(
    base: list[float], new: list[float], complaint: str
) -> None:
    """One trial, zero, and what is not finite raise instead of giving a NaN."""
    with pytest.raises(ValueError, match=complaint):
        change(base, new)


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (3.1, 9.0, "higher"),
        (3.0, 9.0, "unclear"),
        (-9.0, -2.92, "lower"),
        (-9.0, -2.91, "unclear"),
        (0.5, 2.5, "no change"),
        (-2.5, -0.5, "no change"),
        (-3.0, 3.0, "no change"),
        (0.0, 6.0, "no change"),
        (0.0, 6.09, "no change"),
        (-5.74, 0.0, "no change"),
        (-5.75, 0.0, "unclear"),
        (0.1, 5.0, "unclear"),
        (-2.0, 6.1, "unclear"),
        (-5.8, 2.0, "unclear"),
        (-40.0, 40.0, "unclear"),
        (1.0, 3.5, "unclear"),
    ],
)
def test_outcome_follows_from_interval_and_floor(low: float, high: float, outcome: str) -> None:
    """Beside a floor of 3%: beyond it, within it or around zero, and all that is neither."""
    assert judge(Change(low, (low + high) / 2, high), 3.0) == outcome


@given(percents, percents, st.floats(0.1, 100), st.floats(0.1, 100))
def test_higher_floor_never_declares_more(one: float, other: float, f: float, g: float) -> None:
    """What is no change beyond a floor is none beyond a higher one."""
    found = Change(min(one, other), (one + other) / 2, max(one, other))
    declared = {"higher", "lower"}
    if judge(found, max(f, g)) in declared:
        assert judge(found, min(f, g)) == judge(found, max(f, g))


@given(percents, percents, st.floats(0.1, 100))
def test_change_that_is_declared_excludes_zero_and_the_floor(
    one: float, other: float, floor: float
) -> None:
    """No interval that holds 0 or touches the floor is called a change."""
    low, high = sorted((one, other))
    outcome = judge(Change(low, (low + high) / 2, high), floor)
    assert (outcome == "higher") == (low > floor)
    assert (outcome == "lower") == (high < 100 / (1 + floor / 100) - 100)


MIRROR = {"higher": "lower", "lower": "higher"}
log_ratios = st.floats(-2, 2)


@given(log_ratios, log_ratios, st.floats(0.1, 300))
def test_outcome_is_mirrored_where_base_and_new_change_places(
    one: float, other: float, floor: float
) -> None:
    """What is lower there is higher back, and what is unclear stays so, whatever the floor."""
    low, high = sorted((one, other))
    ends = [size * math.log1p(floor / 100) for size in (-2, -1, 0, 1, 2)]
    # Past 12 digits, rounding says on which side of an end the interval begins.
    assume(min(abs(at - end) for at in (low, high) for end in ends) > 1e-12)
    there, back = of_logs(low, high), of_logs(-high, -low)
    outcome = judge(there, floor)
    assert judge(back, floor) == MIRROR.get(outcome, outcome)


def of_logs(low: float, high: float) -> Change:
    """The change whose interval has these ends on the scale of logarithms."""
    return Change(*(100 * math.expm1(log) for log in (low, (low + high) / 2, high)))


def test_loss_beyond_a_floor_as_a_ratio_is_not_hidden() -> None:
    """Half the rate is beyond a floor of 60%, since twice the rate is."""
    assert judge(Change(-52.0, -50.0, -48.0), 60.0) == "lower"
    assert floor_ends(25.0) == (pytest.approx(-20.0), 25.0)


def skewed(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """P99s of 100 lognormal response times: skewness about 1."""
    return np.sort(rng.lognormal(0, 0.5, (*shape, 100)), axis=-1)[..., 98]


@pytest.mark.parametrize("trials", [3, 5, 10])
@pytest.mark.parametrize("spread", [1.0, 3.0])
def test_interval_of_a_change_covers_the_truth(trials: int, spread: float) -> None:
    """Of 2,000 pairs of runs, NEW with more spread or not, at least 93% hold the true change."""
    rng = np.random.default_rng(23)
    base = rng.lognormal(0, 0.04, (2_000, trials))
    new = rng.lognormal(math.log(1.1), 0.04 * spread, (2_000, trials))
    found = [change(one.tolist(), other.tolist()) for one, other in zip(base, new, strict=True)]
    assert sum(each.low <= 10 <= each.high for each in found) / 2_000 >= 0.93


@pytest.mark.parametrize("trials", [3, 5, 10])
def test_interval_of_skewed_percentiles_covers_the_truth(trials: int) -> None:
    """At least 93% too where the per-trial values are p99s of lognormal response times."""
    rng = np.random.default_rng(24)
    base, new = skewed(rng, (2_000, trials)), 1.1 * skewed(rng, (2_000, trials))
    found = [change(one.tolist(), other.tolist()) for one, other in zip(base, new, strict=True)]
    assert sum(each.low <= 10 <= each.high for each in found) / 2_000 >= 0.93


def test_random_halves_of_one_run_are_not_called_changed() -> None:
    """A/A: of 100 splits of 40 blocks at six k, at most 2% of the cells have any change."""
    rng = np.random.default_rng(31)
    declared = 0
    for k in range(6):
        run = figures_of_run(Store(), k, 40, rng)
        for _ in range(100):
            order = rng.permutation(40)
            one, other = np.sort(order[:20]), np.sort(order[20:])
            verdicts = {verdict(run[name][one], run[name][other]) for name in STATISTICS}
            declared += bool(verdicts & {"higher", "lower"})
    assert declared <= 0.02 * 600


@pytest.mark.parametrize("blocks", [3, 5, 10])
def test_runs_of_the_same_store_are_seldom_called_changed(blocks: int) -> None:
    """A/A with drift of their own: at most 3% of the cells of separate runs have any change."""
    rng = np.random.default_rng(37)
    declared = 0
    for trial in range(200):
        base, new = (figures_of_run(Store(), trial % 6, blocks, rng) for _ in range(2))
        verdicts = {verdict(base[name], new[name]) for name in STATISTICS}
        declared += bool(verdicts & {"higher", "lower"})
    assert declared <= 0.03 * 200


# The median of the fastest of five delays scatters most: it takes more writes to see its change.
@pytest.mark.parametrize(("k", "writes"), [(1, 2_000), (2, 800), (3, 400), (4, 400), (5, 400)])
def test_median_that_is_a_tenth_slower_is_declared(k: int, writes: int) -> None:
    """Delays 0:20, these writes a trial: at least 9 of 10 comparisons of 10 blocks say so."""
    rng = np.random.default_rng(41)
    store, slower = Store(writes=writes), Store(writes=writes, slowness=1.1)
    runs = [[figures_of_run(each, k, 10, rng) for each in (store, slower)] for _ in range(10)]
    verdicts = [verdict(base["p50"], new["p50"]) for base, new in runs]
    assert verdicts.count("higher") >= 9, verdicts
