"""What requests ask for: the distributions that were asked for, the same for the same seed."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from orchestration.load.plan import MIN_VALUE_BYTES, MIXES, LoadPlan, Share
from orchestration.load.workload import (
    HOT_KEYS,
    HOT_REQUESTS,
    MAX_SCAN_KEYS,
    YCSB,
    InsertedKeys,
    Zipfian,
    key_chooser,
    key_name,
    node_chooser,
    operation_chooser,
    read_chooser,
    scan_length_chooser,
    value_maker,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DRAWS = 40_000
# A right sampler fails a check at this level once in a million seeds; they are fixed.
LEVEL = 1e-6


def numbers(plan: LoadPlan, stream: int = 0) -> Callable[[], int]:
    """Returns the plan's key chooser, where nothing was inserted."""
    return key_chooser(plan, stream, InsertedKeys(plan, Share()))


def p_value(drawn: Sequence[int], shares: Sequence[float]) -> float:
    """Returns how probable counts as far off as these are, if numbers from 0 have these shares."""
    counts = np.bincount(drawn, minlength=len(shares))
    wanted = np.asarray(shares) * len(drawn)
    # A chi-squared test wants about five draws in every class.
    rare = wanted < 5
    counts = np.append(counts[~rare], counts[rare].sum())
    wanted = np.append(wanted[~rare], wanted[rare].sum())
    kept = wanted > 0
    if kept.sum() == 1:
        return float(counts[kept].sum() == len(drawn))
    return float(stats.chisquare(counts[kept], wanted[kept]).pvalue)


def zipfian_shares(ranks: int, exponent: float = 0.99) -> np.ndarray:
    """Returns each rank's share, by the definition."""
    weights = np.arange(1, ranks + 1) ** -exponent
    return weights / weights.sum()


def test_keys_are_uniform_reproducible_and_differ_by_stream() -> None:
    """All keys come up about equally often, the same for the same seed and stream."""
    plan = LoadPlan(keys=10, seed=3)
    drawn = [choose() for choose in [numbers(plan)] for _ in range(10_000)]
    again, other = (
        [choose() for _ in range(50)] for choose in (numbers(plan), numbers(plan, stream=1))
    )
    assert drawn[:50] == again != other
    counts = Counter(drawn)
    assert len(counts) == 10
    # Five standard deviations of a binomial with p = 0.1.
    assert all(count == pytest.approx(1_000, abs=150) for count in counts.values())


@settings(deadline=None)
@given(st.integers(min_value=MIN_VALUE_BYTES, max_value=300), st.integers(min_value=0))
def test_values_have_their_size_and_never_repeat(value_bytes: int, seed: int) -> None:
    """Every value is unique over streams and seeds, and exactly as long as asked for."""
    plans = [
        LoadPlan(value_bytes=(value_bytes, value_bytes), seed=(seed + step) % 2**63)
        for step in (0, 1)
    ]
    makers = [value_maker(plan, stream) for plan in plans for stream in range(3)]
    values = [maker() for maker in makers for _ in range(20)]
    assert len(set(values)) == len(values)
    assert {len(value.encode()) for value in values} == {value_bytes}


def test_trials_of_a_block_write_the_same_keys_and_sizes_but_never_the_same_value() -> None:
    """One seed pairs trials; a replica that slept through one does not match by luck."""
    plans = [LoadPlan(value_bytes=(64, 128), seed=7, trial=name) for name in ("k1", "k3")]
    first, second = ([make() for make in [value_maker(plan, 0)] * 50] for plan in plans)
    assert not set(first) & set(second)
    assert [len(value) for value in first] == [len(value) for value in second]
    keys = [[choose() for choose in [numbers(plan)] * 50] for plan in plans]
    assert keys[0] == keys[1]


@pytest.mark.parametrize(("read_share", "reads"), [(0.0, 0), (1.0, 1_000)])
def test_reads_at_the_ends_of_the_range(read_share: float, reads: int) -> None:
    """A share of 0 never reads and a share of 1 always does."""
    is_read = read_chooser(LoadPlan(read_share=read_share), 0)
    assert sum(is_read() for _ in range(1_000)) == reads


def test_nodes_to_read_from_are_uniform_and_reproducible() -> None:
    """Every follower is read from about equally often, in an order that the seed decides."""
    plan = LoadPlan(seed=3)
    first, again = node_chooser(plan, 0, 3), node_chooser(plan, 0, 3)
    drawn = [first() for _ in range(3_000)]
    assert drawn == [again() for _ in range(3_000)]
    counts = Counter(drawn)
    assert set(counts) == {0, 1, 2}
    assert all(abs(count - 1_000) < 150 for count in counts.values())  # 5.8 standard deviations


def test_processes_read_from_nodes_in_orders_of_their_own() -> None:
    """Several processes do not all ask the same follower at once."""
    orders = [
        [choose() for _ in range(50)]
        for choose in (node_chooser(LoadPlan(seed=3), stream, 3) for stream in range(3))
    ]
    assert all(one != other for one, other in itertools.combinations(orders, 2))


@pytest.mark.parametrize("ranks", [1, 2, 3, 10, 1_000])
@pytest.mark.parametrize("exponent", [0.5, 0.99, 1.5])
def test_zipfian_ranks_follow_their_definition(ranks: int, exponent: float) -> None:
    """Rejection-inversion draws what adding up all weights would."""
    zipfian, random = Zipfian(ranks, exponent), LoadPlan(seed=5).random("keys", 0).random
    drawn = [zipfian.draw(random) - 1 for _ in range(DRAWS)]
    assert p_value(drawn, zipfian_shares(ranks, exponent)) > LEVEL


def test_a_zipfian_that_grew_is_one_made_so() -> None:
    """Inserts change how many ranks there are, and nothing else."""
    grown = Zipfian(3)
    grown.grow(50)
    draws = [
        [each.draw(random) for _ in range(200)]
        for each in (grown, Zipfian(50))
        for random in [LoadPlan().random("keys", 0).random]
    ]
    assert draws[0] == draws[1]


def test_a_wrong_exponent_would_be_noticed() -> None:
    """The check of the distribution can fail."""
    random = LoadPlan(seed=5).random("keys", 0).random
    drawn = [Zipfian(100, 0.9).draw(random) - 1 for _ in range(DRAWS)]
    assert p_value(drawn, zipfian_shares(100)) < LEVEL


@given(st.sets(st.integers(min_value=0, max_value=10**9), max_size=20))
def test_keys_of_different_numbers_differ(numbers: set[int]) -> None:
    """A number is a key, and no other number is the same one."""
    assert len({key_name(number) for number in numbers}) == len(numbers)


def test_zipfian_keys_start_with_the_most_asked_for() -> None:
    """Key 0 is asked for most, and each further one less."""
    choose = numbers(LoadPlan(keys=200, key_choice="zipfian", seed=2))
    assert p_value([choose() for _ in range(DRAWS)], zipfian_shares(200)) > LEVEL


def test_latest_asks_for_the_newest_keys_first() -> None:
    """The newest insert that came to its end is asked for most, then the one before it."""
    plan = LoadPlan(keys=20, key_choice="latest", seed=4)
    inserted = InsertedKeys(plan, Share())
    choose = key_chooser(plan, 0, inserted)
    begun = [inserted.begin() for _ in range(10)]
    for number in begun:
        inserted.end(number)
    newest_first = [29 - choose() for _ in range(DRAWS)]
    assert p_value(newest_first, zipfian_shares(30)) > LEVEL


def test_hot_set_takes_its_share_of_the_requests() -> None:
    """A fifth of the keys gets four fifths of the requests, evenly on both sides."""
    choose = numbers(LoadPlan(keys=100, key_choice="hotset", seed=6))
    hot = round(100 * HOT_KEYS)
    shares = [HOT_REQUESTS / hot] * hot + [(1 - HOT_REQUESTS) / (100 - hot)] * (100 - hot)
    assert p_value([choose() for _ in range(DRAWS)], shares) > LEVEL
    only = numbers(LoadPlan(keys=1, key_choice="hotset"))
    assert {only() for _ in range(10)} == {0}


def test_a_choice_of_the_plan_wins_over_the_scenarios() -> None:
    """`--key-choice` decides if it is given, and the scenario if not."""
    plan = LoadPlan(keys=1_000)
    inserted = InsertedKeys(plan, Share())
    own = key_chooser(plan, 0, inserted, "zipfian")
    asked = key_chooser(LoadPlan(keys=1_000, key_choice="uniform"), 0, inserted, "zipfian")
    assert Counter(own() for _ in range(2_000))[0] > 150
    assert Counter(asked() for _ in range(2_000))[0] < 20


@given(st.integers(1, 4), st.lists(st.integers(0, 200), max_size=60))
def test_inserts_of_several_processes_never_meet(processes: int, turns: list[int]) -> None:
    """Each new key is inserted once, whoever inserts when."""
    plan = LoadPlan(keys=7)
    parts = [InsertedKeys(plan, Share(index, processes)) for index in range(processes)]
    begun = [parts[turn % processes].begin() for turn in turns]
    assert len(set(begun)) == len(begun)
    assert all(number >= plan.keys for number in begun)


@given(st.permutations(range(8)), st.integers(0, 8), st.integers(0, 2))
def test_a_key_is_read_only_when_its_insert_and_all_before_it_have_ended(
    order: list[int], ended: int, index: int
) -> None:
    """A read never asks for a key that may not be there yet."""
    plan = LoadPlan(keys=5)
    inserted = InsertedKeys(plan, Share(index, 3))
    begun = [inserted.begin() for _ in range(8)]
    done = {order[position] for position in range(ended)}
    for position in order[:ended]:
        inserted.end(begun[position])
    readable = list(itertools.takewhile(lambda position: position in done, range(8)))
    wanted = [begun[position] for position in reversed(readable)] + [4, 3, 2, 1, 0]
    ranks = range(1, inserted.readable + plan.keys + 1)
    assert [inserted.newest(rank) for rank in ranks] == wanted


@pytest.mark.parametrize("mix", MIXES)
def test_operations_come_in_the_shares_of_their_mix(mix: str) -> None:
    """A mix is what its name says, over many requests."""
    choose = operation_chooser(LoadPlan(mix=mix, seed=8), 0)
    shares = YCSB[mix].shares
    assert sum(shares.values()) == pytest.approx(1)
    names = list(shares)
    drawn = [names.index(choose()) for _ in range(DRAWS)]
    assert len(names) == 1 or p_value(drawn, list(shares.values())) > LEVEL


def test_scans_are_of_all_lengths_alike() -> None:
    """A scan has 1 to 100 keys, each as often as another."""
    choose = scan_length_chooser(LoadPlan(seed=9), 0)
    shares = [0.0] + [1 / MAX_SCAN_KEYS] * MAX_SCAN_KEYS
    assert p_value([choose() for _ in range(DRAWS)], shares) > LEVEL


def test_values_of_a_range_have_all_its_sizes_and_never_repeat() -> None:
    """Sizes are uniform between the two ends, both included."""
    make = value_maker(LoadPlan(value_bytes=(MIN_VALUE_BYTES, MIN_VALUE_BYTES + 9), seed=1), 0)
    values = [make() for _ in range(5_000)]
    assert len(set(values)) == len(values)
    sizes = [len(value) - MIN_VALUE_BYTES for value in values]
    assert p_value(sizes, [0.1] * 10) > LEVEL
