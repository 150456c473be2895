"""A node's settings: defaults, bounds, and refusals that name the variable and its bound."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from kv_app.addresses import normal_host
from kv_app.bounds import MAX_FOLLOWERS
from kv_app.delays import DelayKind
from kv_app.errors import SettingsError
from kv_app.meta import Role
from kv_app.settings import Settings

THREE_FOLLOWERS = "http://127.0.0.1:8001,http://127.0.0.1:8002,http://127.0.0.1:8003"
VARIABLES = [
    "ROLE",
    "NODE_ID",
    "START_ID",
    "HOST",
    "PORT",
    "ADVERTISE_URL",
    "FOLLOWER_URLS",
    "WRITE_QUORUM",
    "MIN_DELAY_MS",
    "MAX_DELAY_MS",
    "DELAY_MODEL",
    "DELAY_SEED",
    "REQUEST_TIMEOUT",
    "CLUSTER_TOKEN",
    "ALLOW_INSECURE_BIND",
    "ALLOWED_HOSTS",
    "MAX_KEY_BYTES",
    "MAX_VALUE_BYTES",
    "MAX_BODY_BYTES",
    "MAX_BATCH_OPERATIONS",
    "MAX_IN_FLIGHT",
    "MAX_CONNECTIONS",
    "REQUEST_READ_TIMEOUT_S",
    "DATA_DIR",
    "LOG_BYTES",
    "LOG_ENTRIES",
    "IDEMPOTENCY_KEYS",
    "HEARTBEAT_TIMEOUT_S",
    "RECONNECT_MAX_S",
    "LOG_LEVEL",
]
DEFAULTS = {
    "role": Role.LEADER,
    "node_id": "node",
    "host": "127.0.0.1",
    "port": 8000,
    "advertise_url": "http://127.0.0.1:8000",
    "follower_urls": (),
    "write_quorum": 0,
    "is_write_quorum_set": False,
    "min_delay_ms": 0.0,
    "max_delay_ms": 0.0,
    "delay_kind": DelayKind.INDEPENDENT,
    "request_timeout_s": 5.0,
    "cluster_token": None,
    "allowed_hosts": (),
    "max_key_bytes": 1024,
    "max_value_bytes": 1024 * 1024,
    "max_body_bytes": 4 * 1024 * 1024,
    "max_batch_operations": 1000,
    "max_in_flight": 20_000,
    "max_connections": 10_000,
    "request_read_timeout_s": 10.0,
    "data_dir": None,
    "log_bytes": 256 * 1024 * 1024,
    "log_entries": 100_000,
    "idempotency_keys": 100_000,
    "heartbeat_timeout_s": 10.0,
    "reconnect_max_s": 1.0,
    "log_level": "info",
}
DRAWN = {"start_id", "delay_seed"}


def read(**environment: str) -> Settings:
    """Reads settings from these variables alone."""
    return Settings.from_environment(environment)


def fixed(settings: Settings) -> dict[str, object]:
    """Returns all members but those that are drawn anew at every start."""
    return {name: getattr(settings, name) for name in DEFAULTS}


def test_settings_of_an_empty_environment_are_the_documented_defaults() -> None:
    """A node without settings is a leader alone on loopback; no member is left out here."""
    assert {member.name for member in dataclasses.fields(Settings)} == DEFAULTS.keys() | DRAWN
    assert fixed(read()) == DEFAULTS
    assert fixed(Settings()) == DEFAULTS


def test_settings_that_are_empty_or_blank_count_as_unset() -> None:
    """``FOLLOWER_URLS=`` in a file or a compose variable means the default."""
    for blank in ("", "  "):
        assert fixed(read(**dict.fromkeys(VARIABLES, blank))) == DEFAULTS


def test_settings_of_the_process_are_read_without_an_argument(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The node itself reads its own environment."""
    monkeypatch.setenv("NODE_ID", "from the environment")
    assert Settings.from_environment().node_id == "from the environment"


def test_settings_with_every_variable_hold_what_was_given() -> None:
    """Each variable arrives, in its type and unit, with blanks around it taken off."""
    settings = read(
        ROLE=" Leader ",
        NODE_ID="n1",
        START_ID="s1",
        HOST="::1",
        PORT="9000",
        ADVERTISE_URL="http://leader.example:80/",
        FOLLOWER_URLS=f"{THREE_FOLLOWERS}/, ,",
        WRITE_QUORUM="2",
        MIN_DELAY_MS="0.5",
        MAX_DELAY_MS="1e3",
        DELAY_MODEL="FIFO",
        DELAY_SEED="42",
        REQUEST_TIMEOUT="2.5",
        CLUSTER_TOKEN="secret",
        ALLOWED_HOSTS="Store.example, other,",
        MAX_KEY_BYTES="16",
        MAX_VALUE_BYTES="0",
        MAX_BODY_BYTES="100",
        MAX_BATCH_OPERATIONS="6",
        MAX_IN_FLIGHT="7",
        MAX_CONNECTIONS="9",
        REQUEST_READ_TIMEOUT_S="1.5",
        DATA_DIR=" /var/lib/kv ",
        LOG_BYTES="1048576",
        LOG_ENTRIES="8",
        IDEMPOTENCY_KEYS="0",
        HEARTBEAT_TIMEOUT_S="3",
        RECONNECT_MAX_S="0.25",
        LOG_LEVEL="DEBUG",
    )
    assert settings == Settings(
        role=Role.LEADER,
        node_id="n1",
        start_id="s1",
        host="::1",
        port=9000,
        advertise_url="http://leader.example:80",
        follower_urls=tuple(THREE_FOLLOWERS.split(",")),
        write_quorum=2,
        min_delay_ms=0.5,
        max_delay_ms=1000.0,
        delay_kind=DelayKind.FIFO,
        delay_seed=42,
        request_timeout_s=2.5,
        cluster_token="secret",
        allowed_hosts=("store.example", "other"),
        max_key_bytes=16,
        max_value_bytes=0,
        max_body_bytes=100,
        max_batch_operations=6,
        max_in_flight=7,
        max_connections=9,
        request_read_timeout_s=1.5,
        data_dir=Path("/var/lib/kv"),
        log_bytes=1 << 20,
        log_entries=8,
        idempotency_keys=0,
        heartbeat_timeout_s=3.0,
        reconnect_max_s=0.25,
        log_level="debug",
    )


NUMBERS = {
    "PORT": (1, 65535),
    "WRITE_QUORUM": (0, MAX_FOLLOWERS),
    "MIN_DELAY_MS": (0.0, 3_600_000.0),
    "MAX_DELAY_MS": (0.0, 3_600_000.0),
    "DELAY_SEED": (0, 2**63 - 1),
    "REQUEST_TIMEOUT": (0.001, 3600.0),
    "MAX_KEY_BYTES": (1, 65536),
    "MAX_VALUE_BYTES": (0, 64 * 1024 * 1024),
    "MAX_BODY_BYTES": (64, 2**30),
    "MAX_BATCH_OPERATIONS": (1, 100_000),
    "MAX_IN_FLIGHT": (1, 10_000_000),
    "MAX_CONNECTIONS": (1, 1_000_000),
    "REQUEST_READ_TIMEOUT_S": (0.1, 3600.0),
    "LOG_BYTES": (2**20, 2**40),
    "LOG_ENTRIES": (1, 100_000_000),
    "IDEMPOTENCY_KEYS": (0, 100_000_000),
    "HEARTBEAT_TIMEOUT_S": (0.1, 3600.0),
    "RECONNECT_MAX_S": (0.01, 3600.0),
}
NOT_NUMBERS = ["many", "nan", "inf", "-inf", "0x10", "1,5", "--1", "1 2"]
bad_numbers = [
    (name, bad)
    for name, (low, high) in NUMBERS.items()
    for bad in [*NOT_NUMBERS, str(low - 1), str(high + 1), *(["1.5"] if type(low) is int else [])]
]


@pytest.mark.parametrize(("name", "bad"), bad_numbers)
def test_number_that_is_none_or_out_of_bounds_is_refused_with_its_bounds(
    name: str, bad: str
) -> None:
    """The message names the variable, what it held, and both bounds."""
    with pytest.raises(SettingsError) as refusal:
        read(**{name: bad})
    low, high = NUMBERS[name]
    for part in (f"{name}={bad!r}", "number", f"from {low} to {high}"):
        assert part in str(refusal.value)


@pytest.mark.parametrize("name", NUMBERS)
def test_number_at_its_bounds_is_taken(name: str) -> None:
    """Bounds belong to what is allowed."""
    for bound in NUMBERS[name]:
        read(MAX_DELAY_MS="3600000", **{} if name == "MAX_DELAY_MS" else {name: str(bound)})


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("ROLE", "leader, follower"),
        ("DELAY_MODEL", "independent, fifo"),
        ("ALLOW_INSECURE_BIND", "0, 1, true, false"),
        ("LOG_LEVEL", "debug, info, warning, error"),
    ],
)
def test_choice_that_is_unknown_is_refused_with_the_known_ones(name: str, allowed: str) -> None:
    """The message lists what may be chosen."""
    with pytest.raises(SettingsError, match=f"^{name}='other' must be one of {allowed}.$"):
        read(**{name: "other"})


@pytest.mark.parametrize(
    "bad",
    [
        "127.0.0.1:8001",
        "https://127.0.0.1:8001",
        "HTTP://127.0.0.1:8001",
        "http://",
        "http://:8001",
        "http://127.0.0.1:0",
        "http://127.0.0.1:99999",
        "http://127.0.0.1:port",
        "http://127.0.0.1:8001/path",
        "http://127.0.0.1:8001?query",
        "http://127.0.0.1:8001?",
        "http://127.0.0.1:8001#part",
        "http://user@127.0.0.1:8001",
        "http://:password@127.0.0.1:8001",
        "http://[::1:8001",
        "http://two..dots:8001",
        "http://two words:8001",
        "http://0.0.0.0:8001",
        "http://0:8001",
        "http://[::]:8001",
    ],
)
@pytest.mark.parametrize("name", ["ADVERTISE_URL", "FOLLOWER_URLS"])
def test_url_that_no_node_can_have_is_refused_with_the_form(name: str, bad: str) -> None:
    """Whatever could not be connected to later is refused at the start."""
    with pytest.raises(SettingsError) as refusal:
        read(**{name: bad})
    assert f"{name}={bad!r} must be of the form http://HOST:PORT" in str(refusal.value)


def test_followers_named_twice_or_too_many_are_refused() -> None:
    """A follower counts once, so it is named once; their number has a bound."""
    with pytest.raises(SettingsError, match=r"FOLLOWER_URLS names http://a:1 more than once"):
        read(FOLLOWER_URLS="http://a:1,http://b:1,http://A:01/")
    many = ",".join(f"http://127.0.0.1:{port}" for port in range(1, MAX_FOLLOWERS + 2))
    with pytest.raises(SettingsError, match=r"FOLLOWER_URLS names 65 followers; 64 at most"):
        read(FOLLOWER_URLS=many)


@pytest.mark.parametrize("bad", ["x" * 129, "a\nb", "\x00"])
def test_node_id_that_cannot_be_shown_is_refused(bad: str) -> None:
    """A name goes into logs and reports: printable and of a bounded length."""
    with pytest.raises(SettingsError, match=r"^NODE_ID=.* must be 1 to 128 printable characters"):
        read(NODE_ID=bad)


def test_delay_range_upside_down_is_refused_with_both_ends() -> None:
    """The least delay must not exceed the most, and the message shows both."""
    with pytest.raises(SettingsError, match=r"MIN_DELAY_MS=5 must not exceed MAX_DELAY_MS=2.5"):
        read(MIN_DELAY_MS="5", MAX_DELAY_MS="2.5")


@pytest.mark.parametrize("host", ["0.0.0.0", "0", "::", "[::]", "192.0.2.1", "db.example"])  # noqa: S104
def test_bind_beyond_loopback_needs_a_token_or_a_word(host: str) -> None:
    """A store without a token is not shown to other machines by mistake."""
    with pytest.raises(SettingsError) as refusal:
        read(HOST=host)
    for part in (f"HOST={normal_host(host)}", "CLUSTER_TOKEN", "ALLOW_INSECURE_BIND=1", "unset it"):
        assert part in str(refusal.value)
    read(HOST=host, CLUSTER_TOKEN="t")
    read(HOST=host, ALLOW_INSECURE_BIND="1")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "127.1", "::1", "[::1]", "LocalHost"])
def test_bind_to_loopback_needs_nothing(host: str) -> None:
    """Only this machine reaches it, however it is spelled."""
    assert read(HOST=host).host == normal_host(host)


def test_host_that_cannot_be_looked_up_is_refused() -> None:
    """It has no form in which the system could be asked for it; one in another script has."""
    with pytest.raises(SettingsError, match="is no name that can be looked up"):
        read(HOST="\u00fc" * 70)
    assert read(HOST="b\u00fccher", ALLOW_INSECURE_BIND="1").host == "b\u00fccher"


@pytest.mark.parametrize("host", ["0.0.0.0", "0", "::", "[::]"])  # noqa: S104
@pytest.mark.parametrize(
    "others", [{"ROLE": "follower"}, {"FOLLOWER_URLS": "http://f1:1"}], ids=["follower", "leader"]
)
def test_node_that_listens_on_all_addresses_is_told_which_one_others_reach(
    host: str, others: dict[str, str]
) -> None:
    """It would advertise one at which each node, and each client, finds itself."""
    listens = {"HOST": host, "ALLOW_INSECURE_BIND": "1", **others}
    with pytest.raises(SettingsError) as refusal:
        read(**listens)
    assert str(refusal.value) == (
        f"HOST={normal_host(host)} stands for all addresses of this machine, and other nodes need "
        "one: set ADVERTISE_URL=http://HOST:PORT, the URL at which they reach this node."
    )
    assert read(**listens, ADVERTISE_URL="http://n1:1").advertise_url == "http://n1:1"


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://127.0.0.1:9"), ("::", "http://[::1]:9")],  # noqa: S104
)
def test_leader_alone_on_all_addresses_has_its_own_machines(host: str, url: str) -> None:
    """No other node ever asks for it: a container of one node needs no more settings."""
    assert read(HOST=host, PORT="9", ALLOW_INSECURE_BIND="1").advertise_url == url


def test_leader_that_is_named_among_its_followers_is_refused() -> None:
    """It would count itself as one that never follows."""
    with pytest.raises(SettingsError) as refusal:
        read(ADVERTISE_URL="http://N0:1", FOLLOWER_URLS="http://n0:1/,http://n1:1")
    assert str(refusal.value) == (
        "FOLLOWER_URLS names this node itself (ADVERTISE_URL=http://n0:1); name the others only, "
        "and give each node an ADVERTISE_URL of its own."
    )
    shared = {"ADVERTISE_URL": "http://n1:1", "FOLLOWER_URLS": "http://n1:1,http://n2:1"}
    assert read(ROLE="follower", **shared).follower_urls == ()


def test_urls_are_read_into_one_spelling() -> None:
    """Members are told apart by them."""
    spelled = read(ADVERTISE_URL="http://Node:080/", FOLLOWER_URLS="http://[0::1]:1, http://A")
    assert spelled.advertise_url == "http://node:80"
    assert spelled.follower_urls == ("http://[::1]:1", "http://a:80")


@pytest.mark.parametrize(("variables", "is_set"), [({}, False), ({"WRITE_QUORUM": "1"}, True)])
def test_write_quorum_that_was_set_is_told_from_the_default(
    variables: dict[str, str], *, is_set: bool
) -> None:
    """Only what somebody asked for can be ignored."""
    assert read(FOLLOWER_URLS=THREE_FOLLOWERS, **variables).is_write_quorum_set is is_set


def test_write_quorum_unset_is_one_where_there_is_a_follower() -> None:
    """One follower more than the leader is the least that survives its loss."""
    assert read(FOLLOWER_URLS=THREE_FOLLOWERS).write_quorum == 1
    assert read(FOLLOWER_URLS="").write_quorum == 0


def test_write_quorum_beyond_the_followers_is_taken() -> None:
    """Such a leader starts, and refuses writes with a reason."""
    assert read(FOLLOWER_URLS=THREE_FOLLOWERS, WRITE_QUORUM="5").write_quorum == 5


def test_follower_has_no_followers_of_its_own() -> None:
    """A common environment may name the followers to all nodes."""
    settings = read(ROLE="follower", FOLLOWER_URLS=THREE_FOLLOWERS)
    assert settings.follower_urls == ()
    assert settings.write_quorum == 0


def test_log_unset_holds_all_that_may_be_in_flight() -> None:
    """More writes in flight than the log holds would be refused by the log instead."""
    assert read(MAX_IN_FLIGHT="500000").log_entries == 500_000


def test_advertised_address_follows_host_and_port() -> None:
    """It is how others reach the node unless another one is given; IPv6 goes into brackets."""
    assert read(PORT="9").advertise_url == "http://127.0.0.1:9"
    assert read(HOST="::1", PORT="9").advertise_url == "http://[::1]:9"


def test_start_id_and_delay_seed_unset_are_drawn_anew() -> None:
    """Two starts of one node can be told apart, and do not share their delays."""
    first, second = read(), read()
    assert first.start_id != second.start_id
    assert first.delay_seed != second.delay_seed
    assert Settings().start_id != Settings().start_id


def test_token_is_not_in_any_text_of_the_settings() -> None:
    """Settings may be logged, the token never."""
    settings = read(CLUSTER_TOKEN="very-secret")
    assert settings.cluster_token == "very-secret"
    assert "very-secret" not in f"{settings!r} {settings}"


@pytest.mark.parametrize("token", ["secr\u00e9t", "sec\nret", "sec\x7fret", "s" * 1025])
def test_token_that_no_header_can_carry_is_refused_unseen(token: str) -> None:
    """A node that could neither follow nor be led with it says so, without telling it."""
    with pytest.raises(SettingsError) as refusal:
        read(CLUSTER_TOKEN=token)
    assert str(refusal.value) == "CLUSTER_TOKEN must be 1 to 1024 printable ASCII characters."


@pytest.mark.parametrize("name", ["store.example:80", "http://store.example", "*", "[::1]", "a b"])
def test_host_that_is_no_name_is_refused(name: str) -> None:
    """A port or a scheme would never match, and nobody would see why."""
    with pytest.raises(SettingsError, match="ALLOWED_HOSTS="):
        read(ALLOWED_HOSTS=f"fine.example,{name}")


def test_settings_cannot_be_changed() -> None:
    """They are validated once, so nobody may put something else in afterwards."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        read().port = 1  # type: ignore[misc]
