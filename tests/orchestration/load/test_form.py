"""Who may use the web UI, with which fields, and which store gets the token."""

from __future__ import annotations

import pytest

from orchestration.load.form import hidden_fields, origin_of, own_names, why_foreign

NAMES = {"localhost", "lab-7"}
LOCAL = "127.0.0.1:8089"


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": LOCAL},
        {"Host": LOCAL, "Origin": f"http://{LOCAL}", "Sec-Fetch-Site": "same-origin"},
        {"Host": "localhost:8089", "Sec-Fetch-Site": "none"},
        {"Host": "LOCALHOST:8089", "Origin": "http://localhost:8089"},
        {"host": "[::1]:8089", "origin": "http://[::1]:8089"},
        {"Host": "192.0.2.7:8089"},
        {"Host": "lab-7:8089"},
    ],
)
def test_own_pages_and_programs_may(headers: dict[str, str]) -> None:
    """The UI by its address or the machine's name, and whatever is no browser."""
    assert why_foreign("POST", "/swarm", headers, own_names=NAMES) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": LOCAL, "Origin": "http://evil.example"},
        {"Host": LOCAL, "Origin": "null"},
        {"Host": LOCAL, "Origin": ""},
        {"Host": LOCAL, "Origin": "http://localhost:8089"},
        {"Host": LOCAL, "Origin": "http://127.0.0.1:3000"},
        {"Host": LOCAL, "Sec-Fetch-Site": "cross-site"},
        {"Host": LOCAL, "Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example:8089", "Origin": "http://evil.example:8089"},
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:8089"},
        {"Host": "["},
        {},
    ],
)
@pytest.mark.parametrize(("method", "path"), [("POST", "/swarm"), ("GET", "/stats/reset")])
def test_other_pages_may_not(method: str, path: str, headers: dict[str, str]) -> None:
    """Neither start nor reset a test: not by their origin, nor by a name made to point here."""
    assert why_foreign(method, path, headers, own_names=NAMES)


def test_link_of_another_page_shows_the_ui_and_nothing_else() -> None:
    """A chat or a wiki may link to it."""
    link = {"Host": LOCAL, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert why_foreign("GET", "/", link, own_names=NAMES) is None
    assert why_foreign("GET", "/stats/reset", link, own_names=NAMES)
    assert why_foreign("POST", "/", link, own_names=NAMES)


def test_who_has_logged_in_may_come_by_any_name() -> None:
    """As behind a proxy; not from another origin, though."""
    headers = {"Host": "load.example"}
    assert why_foreign("POST", "/swarm", headers, own_names=None) is None
    assert why_foreign("POST", "/swarm", headers | {"Origin": "http://x.y"}, own_names=None)


def test_own_names_are_the_machines() -> None:
    """And the one that it was told to listen at."""
    assert {"localhost", "ui.example"} <= own_names("UI.example")
    assert "" not in own_names("")


def test_form_sets_what_it_shows() -> None:
    """Files, processes and the like are the command line's; unknown fields are nobody's."""
    options = {"rate", "results_dir", "html_file", "host", "load_processes"}
    fields = {"rate", "results_dir", "html_file", "load_processes", "host", "user_count", "other"}
    assert hidden_fields(fields, options, {"rate"}) == [
        "html_file",
        "load_processes",
        "results_dir",
    ]
    assert hidden_fields({"rate", "host", "user_count"}, options, {"rate"}) == []


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/", True),
        ("http://Leader:80/", "http://leader", True),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8001", False),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000@evil.example", False),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000.evil.example", False),
        ("http://127.0.0.1:8000", None, False),
        ("http://127.0.0.1:8000", "http://[", False),
    ],
)
def test_two_addresses_are_one_server_if_host_and_port_are(
    one: str,
    other: str | None,
    is_same: bool,  # noqa: FBT001 -- pytest hands parameters over by name
) -> None:
    """Whatever stands around them."""
    assert (origin_of(one) == origin_of(other)) is is_same
