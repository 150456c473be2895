"""The description of a sweep, and the order of its cells."""

import itertools
import json
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.errors import UsageError
from orchestration.scenario import Ack, Cell, Scenario, expected_duration_s, expected_trial_s, plan

SCENARIO = Scenario(
    workload="writes",
    engine="local",
    followers=5,
    quorums=(0, 1, 2, 3, 4, 5),
    trials=3,
    warmup_s=1.0,
    duration_s=4.0,
    rate_per_s=100.0,
    users=None,
    total_writes=None,
    keys=None,
    delay_ms=(0.0, 100.0),
    seed=1,
)


@given(
    trials=st.integers(1, 6),
    quorums=st.sets(st.integers(0, 5), min_size=1),
    acks=st.sampled_from([("memory",), ("fsync",), ("memory", "fsync")]),
    seed=st.integers(0, 2**32 - 1),
)
def test_plan_of_any_scenario_has_complete_blocks(
    trials: int, quorums: set[int], acks: tuple[Ack, ...], seed: int
) -> None:
    """Every block holds every k once with every ack, and blocks follow one another."""
    ordered = tuple(sorted(quorums))
    cells = plan(replace(SCENARIO, trials=trials, quorums=ordered, acks=acks, seed=seed))
    assert [cell.block for cell in cells] == sorted(cell.block for cell in cells)
    counted = Counter((cell.block, cell.k, cell.ack) for cell in cells)
    assert counted == Counter(itertools.product(range(trials), ordered, acks))
    assert len({cell.folder for cell in cells}) == len(cells)


def test_trials_at_different_rates_have_folders_of_their_own() -> None:
    """Those of one k and block are told apart by their rate only."""
    cells = [Cell(0, 1, 7, "fsync", rate) for rate in (None, 100.0, 150.0, 150.5)]
    assert [cell.folder for cell in cells] == [
        "block0-k1-fsync",
        "block0-k1-fsync-rate100",
        "block0-k1-fsync-rate150",
        "block0-k1-fsync-rate150.5",
    ]


def test_plan_of_the_same_seed_is_the_same() -> None:
    """A recorded seed repeats the order."""
    assert plan(SCENARIO) == plan(replace(SCENARIO))


def test_plan_depends_on_the_seed() -> None:
    """Orders are shuffled: among some seeds there are many orders."""
    orders = {tuple(c.k for c in plan(replace(SCENARIO, seed=seed))) for seed in range(20)}
    assert len(orders) == 20


def test_cells_of_one_block_share_their_seed_and_blocks_differ() -> None:
    """Within a block all k see the same arrivals, so that differences are paired."""
    seeds = {(cell.block, cell.seed) for cell in plan(SCENARIO)}
    assert len(seeds) == 3
    assert len({seed for _, seed in seeds}) == 3


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"followers": 21}, "--followers"),
        ({"trials": 0}, "--trials"),
        ({"warmup_s": -1.0}, "--warmup"),
        ({"duration_s": 0.0}, "--duration"),
        ({"duration_s": None}, "--duration"),
        ({"rate_per_s": 0.0}, "--rate"),
        ({"rate_per_s": None}, "--rate"),
        ({"users": 5}, "--users"),
        ({"rate_per_s": None, "users": 0}, "--users"),
        ({"quorums": ()}, "--k"),
        ({"quorums": (6,)}, "--k"),
        ({"quorums": (-1,)}, "--k"),
        ({"delay_ms": (100.0, 0.0)}, "--delay"),
        ({"seed": -1}, "--seed"),
        ({"total_writes": 0}, "TOTAL_WRITES"),
        ({"keys": 0}, "--keys"),
        ({"value_bytes": (10, 64)}, "--value-bytes"),
        ({"read_share": 1.5}, "--read-share"),
        ({"processes": 0}, "--processes"),
        ({"rate_per_s": None, "users": 1, "processes": 2}, "--users"),
        ({"followers": 0, "quorums": (0,), "read_from": "followers"}, "--read-from"),
        ({"thresholds": ("p99 <",)}, "--threshold"),
        ({"quorums": (0, 3), "thresholds": ("p99 < 5ms at k=1,2",)}, "p99 < 5ms at k=1-2"),
        ({"engine": "compose", "acks": ("fsync",)}, "DATA_DIR"),
        ({"acks": ("",)}, "DATA_DIR"),
        ({"engine": "attached", "acks": ("",), "is_pinned": True}, "--pin"),
    ],
)
def test_a_bad_setting_is_refused_by_its_name(changes: dict[str, object], name: str) -> None:
    """No scenario exists that cannot be run, and the refusal names the option."""
    with pytest.raises(UsageError, match=name):
        replace(SCENARIO, **changes)


def test_expected_duration_holds_every_trial() -> None:
    """The estimate is at least the time that the trials themselves take."""
    assert expected_duration_s(SCENARIO) > 18 * 5


def test_expected_trial_of_counted_writes_grows_with_k() -> None:
    """A closed loop of 100 writes, 10 at a time, takes ten quorum waits."""
    seed_like = replace(
        SCENARIO,
        duration_s=None,
        rate_per_s=None,
        users=10,
        total_writes=100,
        warmup_s=0.0,
        delay_ms=(0.0, 1_000.0),
    )
    assert expected_trial_s(seed_like, 3) == pytest.approx(10 * 0.5 + 1.0)
    assert expected_trial_s(seed_like, 5) > expected_trial_s(seed_like, 1)


def test_settings_as_json_hold_every_field() -> None:
    """The manifest repeats the whole scenario."""
    assert SCENARIO.as_dict()["quorums"] == [0, 1, 2, 3, 4, 5]
    assert set(SCENARIO.as_dict()) == set(Scenario.__slots__)


def test_a_scenario_comes_back_from_its_json() -> None:
    """A run that was stopped is resumed by what its manifest says."""
    odd = replace(
        SCENARIO, acks=("memory", "fsync"), value_bytes=(64, 99), thresholds=("p99 < 1s",)
    )
    for scenario in (SCENARIO, odd):
        assert Scenario.from_dict(json.loads(json.dumps(scenario.as_dict()))) == scenario
