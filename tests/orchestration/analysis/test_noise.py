"""Noise floors, against a slow obvious model and by what they have to see."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.analysis import noise
from orchestration.analysis.noise import (
    Calibrated,
    Floor,
    floor_of_halves,
    floor_of_runs,
    noise_floor,
)

values = st.floats(0.01, 1e5)


def differences_of_all_halves(logs: list[float]) -> list[float]:
    """How far apart the means of two halves are, for every way to halve."""
    half = len(logs) // 2
    found = []
    for chosen in itertools.combinations(range(len(logs)), half):
        rest = [log for index, log in enumerate(logs) if index not in chosen]
        found.append(abs(np.mean([logs[index] for index in chosen]) - np.mean(rest)))
    return sorted(found)


@given(st.lists(values, min_size=4, max_size=9))
def test_floor_of_halves_lies_in_the_upper_end_of_all_halves(per_block: list[float]) -> None:
    """It is one of the differences that there are, and at least nine in ten are no larger."""
    halves = (len(per_block) // 2, (len(per_block) + 1) // 2)
    floor = math.log1p((floor_of_halves(per_block, compared=halves) or 0) / 100)
    gaps = differences_of_all_halves([math.log(value) for value in per_block])
    assert min(abs(floor - gap) for gap in gaps) < 1e-9
    assert sum(gap <= floor + 1e-9 for gap in gaps) >= 0.9 * len(gaps)


@pytest.mark.parametrize("compared", [(20, 20), (3, 3), (5, 40)])
def test_floor_of_chance_is_that_of_runs_of_the_compared_sizes(compared: tuple[int, int]) -> None:
    """At least 1.96 deviations of the difference of two means, as the normal has it; not twice."""
    rng = np.random.default_rng(3)
    floors = [
        floor_of_halves(rng.lognormal(0, 0.02, 20).tolist(), compared=compared) or 0
        for _ in range(100)
    ]
    normal = 1.96 * 2 * math.sqrt(1 / compared[0] + 1 / compared[1])
    assert normal * 0.95 < np.mean(floors) < normal * 1.3


def test_floor_sees_drift_that_random_halves_would_hide() -> None:
    """Of a run that gets slower by a tenth in the middle, the floor is a tenth."""
    drifting = [10.0] * 10 + [11.0] * 10
    assert floor_of_halves(drifting, compared=(10, 10)) == pytest.approx(10)


def test_floor_of_halves_repeats_and_ignores_the_unit() -> None:
    """The same blocks give the same floor, in seconds or in milliseconds."""
    per_block = np.random.default_rng(5).lognormal(3, 0.1, 11)
    floor = floor_of_halves(per_block.tolist(), compared=(11, 11))
    assert floor == floor_of_halves(per_block.tolist(), compared=(11, 11))
    again = floor_of_halves((per_block / 1000).tolist(), compared=(11, 11))
    assert again == pytest.approx(floor)


def test_fewer_than_four_blocks_have_no_halves() -> None:
    """A floor of two or three blocks would be one of luck."""
    assert floor_of_halves([1.0, 2.0, 3.0], compared=(3, 3)) is None
    assert floor_of_halves([1.0, 2.0, 3.0, 4.0], compared=(4, 4)) is not None


@given(st.lists(st.lists(values, min_size=1, max_size=4), min_size=2, max_size=5))
def test_floor_of_few_runs_is_the_largest_difference_of_two(runs: list[list[float]]) -> None:
    """Up to five runs have ten pairs: the quantile is the range of their geometric means."""
    means = [math.exp(np.mean(np.log(run))) for run in runs]
    assert floor_of_runs(runs) == pytest.approx(
        100 * (max(means) / min(means) - 1), rel=1e-9, abs=1e-6
    )


def test_floor_of_many_runs_leaves_out_the_rarest_pairs() -> None:
    """Of 19 equal runs and one that stands out, that one's pairs are 10% and decide; of 49, not."""
    assert floor_of_runs([[10.0]] * 19 + [[11.0]]) == pytest.approx(10)
    assert floor_of_runs([[10.0]] * 49 + [[11.0]]) == pytest.approx(0)


@pytest.mark.parametrize("runs", [[], [[1.0, 2.0]]])
def test_one_run_has_no_pair(runs: list[list[float]]) -> None:
    """A single run says nothing about the next."""
    with pytest.raises(ValueError, match="two runs"):
        floor_of_runs(runs)


@pytest.mark.parametrize("bad", [[1.0, 0.0, 1.0, 1.0], [1.0, math.nan, 1.0, 1.0]])
def test_floor_of_what_has_no_ratio_is_refused(bad: list[float]) -> None:
    """Zero and what is not finite raise."""
    with pytest.raises(ValueError, match="above zero"):
        floor_of_halves(bad, compared=(4, 4))
    with pytest.raises(ValueError, match="above zero"):
        floor_of_runs([bad, bad])


def test_largest_known_floor_counts() -> None:
    """Halves of either run, the calibration, and never less than the least."""
    calm, wild = [10.0, 10.0, 10.0, 10.0], [10.0, 10.0, 12.0, 12.0]
    assert noise_floor(calm, calm) == Floor(noise.LEAST_PERCENT, "least")
    by_halves = noise_floor(calm, wild)
    assert by_halves == noise_floor(wild, calm)
    # Halves of two blocks differ by a fifth; runs of four scatter by the root of two less.
    assert by_halves == Floor(pytest.approx(100 * (1.2 ** math.sqrt(0.5) - 1)), "halves")
    assert noise_floor(calm, wild, Calibrated(25.0, 4)) == Floor(pytest.approx(25.0), "calibrated")
    assert noise_floor(calm, calm, Calibrated(0.1, 4)) == Floor(noise.LEAST_PERCENT, "least")


def test_without_a_measured_floor_one_is_assumed() -> None:
    """Three blocks and no calibration; one of the two is enough to measure."""
    short, four = [10.0, 11.0, 12.0], [10.0, 10.0, 10.0, 10.0]
    assert noise_floor(short, short) == Floor(noise.ASSUMED_PERCENT, "assumed")
    assert noise_floor(short, four).source == "least"
    expected = Floor(pytest.approx(2.0), "calibrated")
    assert noise_floor(short, short, Calibrated(2.0, 3)) == expected


def test_calibration_of_more_trials_is_scaled_to_those_compared() -> None:
    """A floor of 27 trials is, on the scale of logarithms, three times as high for 3."""
    short, four = [10.0, 11.0, 12.0], [10.0, 10.0, 10.0, 10.0]
    of_many = Calibrated(4.0, 27)
    expected = Floor(pytest.approx(100 * (1.04**3 - 1)), "calibrated")
    assert noise_floor(short, short, of_many) == expected
    assert of_many.percent_for((3, 27)) < of_many.percent_for((3, 3))
    assert noise_floor(four, four, Calibrated(4.0, 1)) == Floor(pytest.approx(4.0), "calibrated")
