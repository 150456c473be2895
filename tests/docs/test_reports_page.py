"""docs/reports.md: its exit codes are those of the code."""

from __future__ import annotations

import signal

from orchestration.exit_codes import ExitCode, of_signal
from tests.docs.pages import ROOT, table_after

PAGE = ROOT / "docs" / "reports.md"


def test_exit_codes_are_all_explained() -> None:
    """Each code stands in the page's table once, and no other does."""
    shown = [int(code) for row in table_after(PAGE, "Exit codes") for code in row[0].split(",")]
    of_signals = [of_signal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert shown == [*ExitCode, *of_signals]
    rows = {row[0]: row[1] for row in table_after(PAGE, "Exit codes")}
    assert f"{of_signal(signal.SIGHUP)} by a closed terminal" in rows["130, 143"]
