"""Names and numbers that the pages share with the code."""

from __future__ import annotations

import msgspec
import pytest

from kv_app import (
    channel,
    folders,
    group_commit,
    main,
    messages,
    outbox,
    session,
    snapshot,
    state,
)
from kv_app.node import EXIT_STORAGE
from orchestration import audit, limits, parity, thresholds, timeline
from orchestration.goal import make_goal
from orchestration.load import plan
from orchestration.report import records, saturation_summary, summary
from orchestration.request import SweepRequest, to_scenario
from orchestration.saturation import trials_to_find
from tests.docs.pages import ROOT, table_after

DOCS = ROOT / "docs"
# What `quorumeter saturate` looks for without options but the objective.
GOAL = make_goal(
    to_scenario(SweepRequest(), followers=5, fresh_seed=7), "p99<50ms", precision=0.05, confirm=3
)


def names_below(page: str, heading: str) -> list[str]:
    """The names in the first column of a table."""
    rows = table_after(DOCS / page, heading)
    return [name.strip(" `") for row in rows for name in row[0].split(",")]


@pytest.mark.parametrize(
    ("heading", "structure"),
    [
        ("Top level of summary.json", summary.Summary),
        ("A cell", summary.Cell),
        ("A block of figures", summary.Difference),
        ("A threshold", thresholds.Outcome),
        ("A check of a threshold", thresholds.Check),
    ],
)
def test_summary_fields_are_those_of_the_schema(
    heading: str, structure: type[msgspec.Struct]
) -> None:
    """Each field of ``summary.json`` is explained, and no other."""
    fields = [field.name for field in msgspec.structs.fields(structure)]
    assert sorted(names_below("reports.md", heading)) == sorted(fields)


@pytest.mark.parametrize(
    ("heading", "structure"),
    [
        ("Top level of saturation.json", saturation_summary.SaturationSummary),
        ("A result", saturation_summary.Result),
        ("A point", saturation_summary.Point),
    ],
)
def test_saturation_fields_are_those_of_the_schema(
    heading: str, structure: type[msgspec.Struct]
) -> None:
    """Each field of ``saturation.json`` is explained, and no other."""
    fields = [field.name for field in msgspec.structs.fields(structure)]
    assert sorted(names_below("saturation.md", heading)) == sorted(fields)


def test_trial_fields_cover_what_a_report_reads() -> None:
    """Each field of a line of ``cells.jsonl`` that a report is made from is explained."""
    fields = {field.name for field in msgspec.structs.fields(records.TrialRow)}
    assert set(names_below("reports.md", "A line of cells.jsonl")) >= fields


def test_timeline_columns_are_those_of_the_file() -> None:
    """The columns of ``timeline.csv`` are named in their order."""
    text = (DOCS / "reports.md").read_text(encoding="utf-8")
    assert ", ".join(f"`{name}`" for name in timeline.COLUMNS) in text


def test_close_codes_are_those_of_the_protocol() -> None:
    """Each code with which a channel is closed is in the table."""
    codes = {str(code) for name, code in vars(messages).items() if name.startswith("CLOSE_")}
    assert set(names_below("replication.md", "Close codes")) == codes


def test_messages_are_those_of_the_protocol() -> None:
    """Each message of the channel is in its table, with its fields in wire order."""
    rows = table_after(DOCS / "replication.md", "Messages")
    written = {row[1].strip("`"): row[3].replace("`", "").split(", ") for row in rows}
    known = (*messages.LeaderMessage.__args__, *messages.FollowerMessage.__args__)
    assert written == {one.__name__: list(one.__struct_fields__) for one in known}


@pytest.mark.parametrize(
    ("page", "numbers"),
    [
        (
            "measurement.md",
            [
                f"{audit.LATE_MS:g} ms",
                f"{audit.LATE_SHARE_OF_RESPONSE:.0%} of the median response time",
                f"{audit.ACCOUNTED_SHARE:.0%} of the arrivals",
                f"{audit.BUSY_CPU_SHARE:.0%} of a core",
                f"{parity.SETTLE_TIMEOUT_S:g} s",
                f"{plan.CLIENT_TIMEOUT_S:g} s",
            ],
        ),
        (
            "saturation.md",
            [
                f"at most {audit.ERROR_SHARE:.0%} of the requests failed",
                f"{audit.ACCOUNTED_SHARE:.0%} came to an end",
                f"At most {GOAL.search.most_trials} trials per k",
                f"within {GOAL.search.lowest_rate_per_s:g} and {limits.RATE.high:,.0f}/s",
                f"it would take {trials_to_find(GOAL.search, 1_000)} trials each",
            ],
        ),
        (
            "replication.md",
            [
                f"{outbox.MAX_BATCH_ENTRIES:,} entries",
                f"{outbox.MAX_BATCH_BYTES >> 20} MiB",
                f"{snapshot.KEYS_PER_CHUNK} keys",
                f"{channel.CONNECT_TIMEOUT_S:g} s",
                f"{channel.FIRST_RETRY_S * 1000:g} ms",
                f"{session.HELLO_TIMEOUT_S:g} s",
                f"the protocol's version ({messages.PROTOCOL_VERSION})",
                f"up to {main.MAX_FRAME_BYTES >> 20} MiB are accepted by a follower",
                f"up to {channel.MAX_ACK_BYTES >> 20} MiB by a leader",
                f"{state.BUCKETS} buckets",
            ],
        ),
        (
            "durability.md",
            [
                f"When {group_commit.FOLD_EVERY:,} entries could be folded",
                f"took longer than {group_commit.INLINE_SYNC_NS / 1e6:g} ms",
                f"mode 0{folders.PRIVATE:o}",
                f"exit code {EXIT_STORAGE}",
            ],
        ),
    ],
)
def test_limits_in_sentences_are_those_of_the_code(page: str, numbers: list[str]) -> None:
    """A limit that changes in the code has to change on the page."""
    text = " ".join((DOCS / page).read_text(encoding="utf-8").split())
    assert [number for number in numbers if number not in text] == []
