"""How a page looks in a browser: what is measured of its layout, where there is a Chromium."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from orchestration.report.write import write_report
from tests.orchestration.report import simulated

if TYPE_CHECKING:
    from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MEASURE = """
<script>
  const scrolls = [...document.querySelectorAll(".wide")].map(e => e.scrollWidth - e.clientWidth);
  const dark = getComputedStyle(document.querySelector("figure svg")).filter;
  const hint = getComputedStyle(document.querySelector(".wide:has(.main)"), "::before").content;
  const page = document.documentElement;
  document.title = JSON.stringify({
    scrolls, dark, hint, isWider: page.scrollWidth > page.clientWidth});
</script>
"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with every column but the ack's: intervals, stamps, parity and errors; measured."""
    rows = simulated.sweep()
    for row in rows:
        row |= {"uncorrected_ms": row["response_ms"], "seen": 400}
        if row["k"] == 3:
            row |= {"stamp": "generator-bound", "reason": "x"}
        if row["k"] == 5:
            row |= {"dropped": 5, "parity": {"status": "error", "replicas": []}}
            row["errors"] = {"outcome_unknown": 3}
    run_dir = simulated.write_run(tmp_path_factory.mktemp("run"), rows)
    write_report(run_dir)
    path = run_dir / "report.html"
    path.write_text(path.read_text().replace("</body>", f"{MEASURE}</body>"))
    return path


def measured(page: Path, *options: str) -> dict[str, Any]:
    """What a browser with these options finds on the page."""
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    profile = f"--user-data-dir={page.parent / 'profile'}"
    done = subprocess.run(
        [*command, profile, *options, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    (title,) = re.findall(r"<title>(.*?)</title>", done.stdout)
    found: dict[str, Any] = json.loads(title)
    return found


def test_everything_fits_a_usual_window_and_charts_keep_their_colours(page: Path) -> None:
    """At 1280 pixels nothing has to be scrolled sideways."""
    found = measured(page, "--window-size=1280,900", "--blink-settings=preferredColorScheme=1")
    assert max(found["scrolls"]) == 0
    assert found["hint"] == "none"
    assert found["dark"] == "none"
    assert not found["isWider"]


def test_narrow_window_says_what_to_scroll_and_darkness_reaches_the_charts(page: Path) -> None:
    """Tables scroll within themselves, never the page; a hint stands above those that do."""
    found = measured(page, "--window-size=500,900", "--blink-settings=preferredColorScheme=0")
    assert max(found["scrolls"]) > 0
    assert "scroll" in found["hint"]
    assert "invert" in found["dark"]
    assert not found["isWider"]
