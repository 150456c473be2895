"""The ledger accepts what a sound store may show, and rejects everything else."""

from __future__ import annotations

import pytest

from tests.campaigns.ledger import Held, Ledger, Outcome, Position, Write

ACKNOWLEDGED, FAILED, UNKNOWN = Outcome.ACKNOWLEDGED, Outcome.FAILED, Outcome.UNKNOWN


def at(seq: int) -> Position:
    """A position of epoch 1."""
    return Position(1, seq)


def ledger_of(*writes: tuple[str, str | None, Outcome, int | None]) -> Ledger:
    """A ledger of writes to one key each: key, value, outcome, seq if it was told."""
    ledger = Ledger()
    for key, value, outcome, seq in writes:
        ledger.begin(Write({key: value})).note(outcome, None if seq is None else at(seq))
    return ledger


def test_acknowledged_write_that_is_shown_or_overwritten_is_fine() -> None:
    """A newer write may hide an older one, also one whose outcome is not known."""
    ledger = ledger_of(("k", "a", ACKNOWLEDGED, 1), ("k", "b", UNKNOWN, None))
    assert ledger.check_view({"k": Held("a", at(1))}) == []
    assert ledger.check_view({"k": Held("b", at(2))}) == []


@pytest.mark.parametrize(
    "shown",
    [None, Held("a", at(2)), Held("b", at(1)), Held(None, at(2)), Held("x", at(3))],
    ids=["nothing", "older value", "value at older position", "deletion", "nobody's value"],
)
def test_lost_acknowledged_write_is_found(shown: Held | None) -> None:
    """Neither absence nor an older or a strange version stands for an acknowledged write."""
    ledger = ledger_of(("k", "a", ACKNOWLEDGED, 1), ("k", "b", ACKNOWLEDGED, 2))
    assert ledger.check_view({"k": shown} if shown else {})


def test_deletion_may_be_shown_or_forgotten() -> None:
    """Replicas drop old deletions, and an unknown deletion may have come after a put."""
    ledger = ledger_of(("k", "a", ACKNOWLEDGED, 1), ("k", None, ACKNOWLEDGED, 2))
    assert ledger.check_view({}) == []
    assert ledger.check_view({"k": Held(None, at(2))}) == []
    assert ledger.check_view({"k": Held("a", at(1))})
    unknown = ledger_of(("k", "a", ACKNOWLEDGED, 1), ("k", None, UNKNOWN, None))
    assert unknown.check_view({}) == []
    earlier = ledger_of(("k", "a", ACKNOWLEDGED, 3), ("k", None, UNKNOWN, 2))
    assert earlier.check_view({})
    failed = ledger_of(("k", "a", ACKNOWLEDGED, 1), ("k", None, FAILED, None))
    assert failed.check_view({})


def test_definite_failure_that_is_shown_is_found() -> None:
    """What failed definitely did not happen, and never will."""
    ledger = ledger_of(("k", "a", FAILED, None))
    assert ledger.check_view({}) == []
    assert "failed definitely" in ledger.check_view({"k": Held("a", at(1))})[0]


def test_unknown_write_may_be_shown_only_at_the_position_that_it_was_told() -> None:
    """An unknown outcome leaves open whether, not where."""
    ledger = ledger_of(("k", "a", UNKNOWN, 4))
    assert ledger.check_view({}) == []
    assert ledger.check_view({"k": Held("a", at(4))}) == []
    assert ledger.check_view({"k": Held("a", at(5))})


def test_key_that_nobody_wrote_is_found() -> None:
    """A replica shows nothing of its own making."""
    assert ledger_of().check_view({"k": Held("a", at(1))})


def test_retry_makes_a_write_acknowledged_and_a_second_position_is_found() -> None:
    """An idempotency key stands for one position."""
    ledger = Ledger()
    write = ledger.begin(Write({"k": "a"}, "once"))
    write.note(UNKNOWN, at(3))
    write.note(FAILED)
    assert write.outcome is UNKNOWN
    write.note(ACKNOWLEDGED, at(3))
    assert write.outcome is ACKNOWLEDGED
    assert ledger.check_positions() == []
    write.note(ACKNOWLEDGED, at(7))
    assert "two positions" in ledger.check_positions()[0]


def test_failed_attempt_before_an_unknown_one_leaves_it_unknown() -> None:
    """Only a write all of whose attempts failed has failed."""
    write = Write({"k": "a"})
    write.note(FAILED)
    write.note(UNKNOWN)
    assert write.outcome is UNKNOWN


def test_two_writes_at_one_position_are_found() -> None:
    """A position means one thing."""
    ledger = ledger_of(("k", "a", ACKNOWLEDGED, 1), ("j", "b", ACKNOWLEDGED, 1))
    assert "both at" in ledger.check_positions()[0]


def test_count_of_entries_tells_a_write_that_was_appended_twice() -> None:
    """A second entry shows in the length of the log though its key was overwritten since."""
    ledger = ledger_of(
        ("k", "a", ACKNOWLEDGED, 1), ("k", "b", UNKNOWN, 3), ("j", "c", FAILED, None)
    )
    assert ledger.check_count(2) == []
    assert ledger.check_count(3)
    ledger.begin(Write({"k": "d"})).note(UNKNOWN)
    assert "without a position" in ledger.check_count(3)[0]


def test_batch_that_is_shown_in_part_is_found() -> None:
    """A batch is one record."""
    ledger = Ledger()
    ledger.begin(Write({"a": "1", "b": "2"})).note(UNKNOWN)
    assert ledger.check_batches({}) == []
    assert ledger.check_batches({"a": Held("1", at(1)), "b": Held("2", at(1))}) == []
    assert ledger.check_batches({"a": Held("1", at(1))})


def test_replica_holds_a_write_only_with_all_of_its_changes() -> None:
    """A batch is held by who holds every key of it, or something newer."""
    ledger = Ledger()
    write = ledger.begin(Write({"a": "1", "b": "2"}))
    write.note(ACKNOWLEDGED, at(5))
    whole = {"a": Held("1", at(5)), "b": Held("3", at(6))}
    assert ledger.holds(write, whole)
    assert not ledger.holds(write, {**whole, "b": Held("0", at(4))})
    assert not ledger.holds(write, {"a": Held("1", at(5))})
