"""Addresses: one spelling for each, and none that nobody reaches."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv_app.addresses import base_url, is_loopback, is_unspecified, normal_host, url_of


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://leader:8000", "http://leader:8000"),
        (" http://leader:8000/ ", "http://leader:8000"),
        ("http://Leader.Example:8000", "http://leader.example:8000"),
        ("http://leader", "http://leader:80"),
        ("http://leader:", "http://leader:80"),
        ("http://leader:08000", "http://leader:8000"),
        ("http://127.0.0.1:1", "http://127.0.0.1:1"),
        ("http://127.1:1", "http://127.0.0.1:1"),
        ("http://[::1]:1", "http://[::1]:1"),
        ("http://[0:0:0:0:0:0:0:1]:1", "http://[::1]:1"),
        ("http://[::ffff:10.0.0.1]:1", "http://10.0.0.1:1"),
        ("http://[FD00::A]:1", "http://[fd00::a]:1"),
    ],
)
def test_address_has_one_spelling(text: str, url: str) -> None:
    """Members are told apart by their URLs: two spellings would be two members."""
    assert base_url(text) == url
    assert base_url(url) == url


@pytest.mark.parametrize(
    "text",
    [
        "http://0.0.0.0:8000",
        "http://0:8000",
        "http://0x0:8000",
        "http://[::]:8000",
        "http://[0::0]:8000",
        "http://[::ffff:0.0.0.0]:8000",
    ],
)
def test_address_that_stands_for_all_of_a_machine_is_nobodys(text: str) -> None:
    """Each node would reach itself there, and take it for the others."""
    with pytest.raises(ValueError, match="http"):
        base_url(text)


@given(st.ip_addresses(), st.integers(1, 65535))
def test_url_of_any_address_is_its_spelling(address: object, port: int) -> None:
    """Whatever a node listens on, others find it under the URL that was made of it."""
    if not is_unspecified(str(address)):
        url = url_of(str(address), port)
        assert base_url(url) == url


@pytest.mark.parametrize(
    ("host", "loopback", "unspecified"),
    [
        ("127.0.0.1", True, False),
        ("127.1", True, False),
        ("::1", True, False),
        ("[::1]", True, False),
        ("::ffff:127.0.0.1", True, False),
        ("localhost", True, False),
        ("LOCALHOST", True, False),
        ("0.0.0.0", False, True),  # noqa: S104  nothing is bound
        ("0", False, True),
        ("::", False, True),
        ("[::]", False, True),
        ("192.0.2.1", False, False),
        ("db.example", False, False),
        ("localhost.example", False, False),
        ("fade", False, False),
        ("", False, False),
    ],
)
def test_host_is_told_by_what_it_is_and_not_by_how_it_is_spelled(
    host: str, *, loopback: bool, unspecified: bool
) -> None:
    """A guard that knows one spelling of an address lets the others by."""
    assert is_loopback(host) is loopback
    assert is_unspecified(host) is unspecified


@pytest.mark.parametrize("host", ["cafe", "DB.example"])
def test_name_that_looks_like_a_number_stays_a_name(host: str) -> None:
    """Letters of the hexadecimal system alone make no address."""
    assert normal_host(host) == host.lower()
