"""From options and the original workload's variables to a scenario."""

from pathlib import Path

import pytest

from orchestration.errors import UsageError
from orchestration.request import SweepRequest, to_scenario, with_environment
from orchestration.scenario import Scenario


def resolve(request: SweepRequest, environment: dict[str, str] | None = None) -> Scenario:
    """The scenario of a request on five followers."""
    completed = with_environment(request, environment or {})
    return to_scenario(completed, followers=5, fresh_seed=7)


def test_a_request_without_options_is_the_documented_default() -> None:
    """A bare sweep measures k 0 to 5, 3 trials of 4 s after 1 s, 100/s, delays 0:100."""
    scenario = resolve(SweepRequest())
    assert scenario.quorums == (0, 1, 2, 3, 4, 5)
    assert (scenario.trials, scenario.warmup_s, scenario.duration_s) == (3, 1.0, 4.0)
    assert (scenario.rate_per_s, scenario.users) == (100.0, None)
    assert (scenario.delay_ms, scenario.seed) == ((0.0, 100.0), 7)


def test_users_make_a_closed_loop() -> None:
    """Naming clients drops the default rate."""
    scenario = resolve(SweepRequest(users=8))
    assert (scenario.rate_per_s, scenario.users) == (None, 8)


def test_an_attached_cluster_keeps_its_delays_unless_told() -> None:
    """Without --delay an attached cluster's delays are left alone."""
    url = "http://127.0.0.1:8000"
    assert resolve(SweepRequest(attach_url=url)).delay_ms is None
    assert resolve(SweepRequest(attach_url=url, delay_ms=(1.0, 2.0))).delay_ms == (1.0, 2.0)


def test_a_workload_that_is_chosen_replaces_what_the_scenarios_own_alone_uses() -> None:
    """Nobody has to edit a file to drive its cluster with another load."""
    mixed = SweepRequest(workload="mixed", read_share=0.9, read_from="followers", rate_per_s=50.0)
    assert resolve(SweepRequest(workload="ycsb-b").over(mixed)).read_from == "followers"
    assert resolve(SweepRequest(workload="writes").over(mixed)).read_from == "leader"
    poisson = SweepRequest(workload="writes", arrivals="poisson", rate_per_s=50.0)
    assert resolve(SweepRequest(workload="seed").over(poisson)).users == 10
    with pytest.raises(UsageError, match="--read-share"):
        resolve(SweepRequest(workload="writes", read_share=0.5).over(mixed))


def test_links_are_independent_unless_an_ordered_stream_is_asked_for() -> None:
    """The delay model reaches the scenario; it is told, and not left to a node's default."""
    assert resolve(SweepRequest()).delay_model == "independent"
    assert resolve(SweepRequest(delay_model="fifo")).delay_model == "fifo"
    assert resolve(SweepRequest(engine="compose", delay_model="fifo")).delay_model == "fifo"


def test_an_attached_cluster_has_the_delay_model_that_it_was_started_with() -> None:
    """Nobody can change it while nodes run, so that a choice is refused and not ignored."""
    url = "http://127.0.0.1:8000"
    assert resolve(SweepRequest(attach_url=url)).delay_model is None
    with pytest.raises(UsageError, match=r"--delay-model .*DELAY_MODEL"):
        SweepRequest(attach_url=url, delay_model="fifo")


def test_the_original_workload_without_variables_is_the_original() -> None:
    """100 writes, 10 at a time, 10 keys, k 1 to 5, delays 0:1000, one trial, no warm-up."""
    scenario = resolve(SweepRequest(workload="seed"))
    assert scenario.quorums == (1, 2, 3, 4, 5)
    assert (scenario.total_writes, scenario.users, scenario.keys) == (100, 10, 10)
    assert (scenario.trials, scenario.warmup_s, scenario.duration_s) == (1, 0.0, None)
    assert scenario.delay_ms == (0.0, 1_000.0)


def test_the_original_workload_honours_its_variables() -> None:
    """Each of its numbers comes from its variable."""
    environment = {
        "QUORUM_VALUES": "1, 3",
        "TOTAL_WRITES": "50",
        "WRITE_CONCURRENCY": "5",
        "KEY_COUNT": "4",
        "REPORT_DIR": "elsewhere",
    }
    request = with_environment(SweepRequest(workload="seed"), environment)
    scenario = to_scenario(request, followers=5, fresh_seed=7)
    assert scenario.quorums == (1, 3)
    assert (scenario.total_writes, scenario.users, scenario.keys) == (50, 5, 4)
    assert request.out == Path("elsewhere")


def test_an_option_wins_over_its_variable() -> None:
    """What was typed counts more than what lies in the environment."""
    environment = {"QUORUM_VALUES": "1", "WRITE_CONCURRENCY": "5", "REPORT_DIR": "elsewhere"}
    request = SweepRequest(workload="seed", quorums="2", users=3, out=Path("here"))
    completed = with_environment(request, environment)
    scenario = to_scenario(completed, followers=5, fresh_seed=7)
    assert (scenario.quorums, scenario.users, completed.out) == ((2,), 3, Path("here"))


def test_other_workloads_ignore_the_original_ones_variables() -> None:
    """A stray QUORUM_VALUES changes nothing for --workload writes."""
    assert resolve(SweepRequest(), {"QUORUM_VALUES": "junk"}) == resolve(SweepRequest())


def test_spawn_cluster_false_attaches_to_the_leader_that_is_named() -> None:
    """LEADER_URL and FOLLOWER_URLS say where."""
    environment = {
        "SPAWN_CLUSTER": "False",
        "LEADER_URL": "http://leader:1",
        "FOLLOWER_URLS": "http://a:1, http://b:1",
    }
    request = with_environment(SweepRequest(workload="seed"), environment)
    assert request.attach_url == "http://leader:1"
    assert request.reached_urls == ("http://a:1", "http://b:1")
    assert request.where == "attached"


@pytest.mark.parametrize("variable", ["LEADER_URL", "FOLLOWER_URLS"])
def test_url_that_is_none_is_refused_by_the_name_of_its_variable(variable: str) -> None:
    """Nobody is asked at it."""
    environment = {"SPAWN_CLUSTER": "false", variable: "http://a:1b"}
    with pytest.raises(UsageError, match=f"{variable} was given 'http://a:1b'"):
        with_environment(SweepRequest(workload="seed"), environment)


@pytest.mark.parametrize(
    "variable",
    ["SPAWN_CLUSTER", "QUORUM_VALUES", "TOTAL_WRITES", "WRITE_CONCURRENCY", "KEY_COUNT"],
)
def test_a_bad_variable_is_refused_by_its_name(variable: str) -> None:
    """The refusal names the variable and what it held."""
    with pytest.raises(UsageError, match=f"{variable} was given 'junk'"):
        resolve(SweepRequest(workload="seed"), {variable: "junk"})


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"attach_url": "http://a", "engine": "local"}, "--engine"),
        ({"attach_url": "http://a", "followers": 3}, "--followers"),
        ({"rate_per_s": 5.0, "users": 3}, "--users"),
        ({"acks": ("memory", "fsync"), "attach_url": "http://a"}, "--durable"),
        ({"acks": ("memory", "fsync"), "engine": "compose"}, "--durable"),
        ({"rate_per_s": 5.0, "workload": "seed"}, "--rate"),
    ],
)
def test_options_that_exclude_each_other_are_refused(options: dict[str, object], name: str) -> None:
    """The refusal names what cannot go together."""
    with pytest.raises(UsageError, match=name):
        SweepRequest(**options)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"read_share": 0.0}, "--read-share"),
        ({"read_share": 0.5, "workload": "ycsb-a"}, "--read-share"),
        ({"read_from": "followers"}, "--read-from"),
        ({"read_from": "leader", "workload": "seed"}, "--read-from"),
        ({"arrivals": "poisson", "users": 3}, "--arrivals"),
        ({"arrivals": "constant", "workload": "seed"}, "--arrivals"),
    ],
)
def test_what_the_load_would_take_no_notice_of_is_refused(
    options: dict[str, object], name: str
) -> None:
    """What is accepted and ignored would be taken for measured."""
    with pytest.raises(UsageError, match=name):
        resolve(SweepRequest(**options))  # type: ignore[arg-type]


def test_clients_replace_the_arrivals_of_a_file() -> None:
    """As they replace its rate."""
    file = SweepRequest(rate_per_s=5.0, arrivals="poisson")
    assert SweepRequest(users=3).over(file).arrivals is None


def test_what_is_given_wins_over_the_original_workloads_numbers() -> None:
    """A file or an option that says how many writes and keys is not overruled."""
    asked = SweepRequest(workload="seed", total_writes=500, keys=50)
    request = with_environment(asked, {"TOTAL_WRITES": "7", "KEY_COUNT": "3"})
    assert (request.total_writes, request.keys) == (500, 50)
