"""The error tree, walked as a whole: codes, statuses, definiteness, the one shape."""

from __future__ import annotations

import ast
import gc
import inspect

import msgspec
import pytest

from kv_app import errors
from kv_app.errors import (
    ChannelError,
    InternalError,
    NotLeaderError,
    OutcomeUnknownError,
    ProtocolViolationError,
    SettingsError,
    StoreError,
    all_store_errors,
)

STATUSES = {400, 401, 403, 404, 405, 409, 413, 421, 422, 429, 500, 503, 504}
EVERY = all_store_errors()


def test_error_tree_is_walked_completely() -> None:
    """No class of the module is missing from the list that tests and documentation use."""
    defined = {
        found
        for _, found in inspect.getmembers(errors, inspect.isclass)
        if issubclass(found, StoreError) and found is not StoreError
    }
    assert set(EVERY) == defined
    assert len(EVERY) == len(defined)
    assert [(e.http_status, e.code) for e in EVERY] == sorted(
        (e.http_status, e.code) for e in EVERY
    )


def test_error_tree_finds_classes_below_classes() -> None:
    """A finer error below another one is listed too."""

    class FinerError(NotLeaderError):
        """Finer."""

        code = "finer"

    assert FinerError in all_store_errors()
    assert FinerError.http_status == NotLeaderError.http_status
    del FinerError
    gc.collect()  # or other tests would find it in the tree


def test_codes_are_unique_and_stable_names() -> None:
    """A program tells errors apart by their code alone."""
    codes = [error.code for error in EVERY]
    assert len(set(codes)) == len(codes)
    assert all(code.replace("_", "a").isalpha() and code.islower() for code in codes)


@pytest.mark.parametrize("error", EVERY)
def test_error_class_is_documented_and_has_a_permitted_status(error: type[StoreError]) -> None:
    """The table of codes is made from these: each class says in its first line what it means."""
    assert error.http_status in STATUSES
    first_line = (error.__doc__ or "").splitlines()[0]
    assert first_line.endswith((".", ";"))
    assert error.__doc__ != StoreError.__doc__


def test_only_unknown_outcomes_and_bugs_are_not_definite() -> None:
    """All else promises that nothing happened and never will."""
    assert {e.code for e in EVERY if not e.definite} == {"outcome_unknown", "internal"}
    assert not StoreError.definite


def test_error_body_has_the_one_shape() -> None:
    """Code, message and definiteness, then the details, which win over a caller's defaults."""
    error = OutcomeUnknownError("It may commit later.", seq=3, follower_acks=1)
    assert error.to_body(follower_acks=0, required=2) == {
        "error": {
            "code": "outcome_unknown",
            "message": "It may commit later.",
            "definite": False,
            "follower_acks": 1,
            "required": 2,
            "seq": 3,
        }
    }
    assert str(error) == "It may commit later."


@pytest.mark.parametrize("error", EVERY)
def test_error_body_of_every_class_names_the_class(error: type[StoreError]) -> None:
    """No class changes the shape."""
    body = error("Why.").to_body()["error"]
    assert body == {"code": error.code, "message": "Why.", "definite": error.definite}
    assert msgspec.json.decode(msgspec.json.encode(body)) == body


def test_internal_error_is_the_default_of_the_tree() -> None:
    """A class that forgets to say otherwise is an unknown outcome, never a definite failure."""
    assert (InternalError.code, InternalError.http_status) == ("internal", 500)


def test_errors_that_no_client_sees_are_not_in_the_tree() -> None:
    """A channel's end and a bad setting are told to operators."""
    for error in (ChannelError, ProtocolViolationError, SettingsError):
        assert not issubclass(error, StoreError)
    assert issubclass(ProtocolViolationError, ChannelError)
    assert issubclass(SettingsError, ValueError)


def test_codes_are_written_in_one_place() -> None:
    """Each code is a class's own: none is written a second time in the module."""
    tree = ast.parse(inspect.getsource(errors))
    texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)]
    assert all(texts.count(error.code) == 1 for error in EVERY)
