"""All files of a report, as a reader finds them."""

from __future__ import annotations

import html
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from orchestration.analysis import histograms
from orchestration.report.published import COPIED, point_latest, publish
from orchestration.report.records import UnreadableRunError, read_run
from orchestration.report.write import replace_file, write_report
from tests.orchestration.report import simulated

VOID = {"meta", "link", "img", "br", "hr"}


class Page(HTMLParser):
    """Collects what a page refers to, and checks that its tags are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.references: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note references and ids."""
        for name, value in attrs:
            if name in {"src", "href", "xlink:href", "action", "data"}:
                self.references.append(value or "")
            if name == "id":
                self.ids.append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note references of a closed tag."""
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        """Expect the tag that was opened last."""
        assert self.open.pop() == tag


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Return the folder of a complete simulated run below a root."""
    folder = tmp_path / "reports" / "writes" / "now"
    return simulated.write_run(folder, simulated.sweep())


def test_report_writes_all_files_and_nothing_temporary(run_dir: Path) -> None:
    """The run's folder and the root hold exactly the documented files."""
    root = run_dir.parents[1]
    write_report(run_dir)
    assert publish(root, run_dir) == []
    charts = {
        f"{n}.{e}" for n in ("quorum_vs_latency", "percentile_spectrum") for e in ("png", "svg")
    }
    pages = {
        *("manifest.json", "cells.jsonl", "summary.json", "junit.xml"),
        *("report.html", "report.md", "summary.md", "perf_summary.json"),
    }
    spectra = {f"response_k{k}.hgrm" for k in range(6)}
    assert {path.name for path in run_dir.iterdir()} == charts | pages | spectra
    assert {path.name for path in root.iterdir()} == {
        "quorum_vs_latency.png",
        "perf_summary.json",
        "latest",
        "writes",
    }


def test_report_without_root_leaves_the_root_alone(run_dir: Path) -> None:
    """Drawing an old run again does not make it the latest."""
    write_report(run_dir)
    assert {path.name for path in run_dir.parents[1].iterdir()} == {"writes"}


def test_page_needs_nothing_but_itself(run_dir: Path) -> None:
    """The page refers only to parts of its own, holds the sentence, and its tags close."""
    summary = write_report(run_dir)
    text = (run_dir / "report.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert all(reference.startswith("#") for reference in page.references)
    assert {reference[1:] for reference in page.references} <= set(page.ids)
    assert not re.search(r"@import|url\((?!#)|<script|<link", text)
    foreign = re.sub(r'xmlns(:\w+)?="[^"]*"', "", text).replace(simulated.LEADER_URL, "")
    assert "://" not in foreign
    assert summary.sentence in html.unescape(text)
    for fact in ("Simulated CPU", "quorumeter sweep --k 0-5", "in memory", "What this does not"):
        assert fact in text


@pytest.mark.parametrize(
    ("model", "told", "not_told"),
    [("independent", "independent delays", "fifo link"), ("fifo", "fifo link", "independent del")],
)
def test_page_explains_the_theory_of_the_delay_model_that_was_used(
    tmp_path: Path, model: str, told: str, not_told: str
) -> None:
    """Where entries keep their order, the formula of those that do not is no explanation."""
    run_dir = simulated.write_run(tmp_path, simulated.sweep([1], trials=1, delay_model=model))
    write_report(run_dir)
    text = " ".join((run_dir / "report.html").read_text(encoding="utf-8").split())
    assert told in text
    assert not_told not in text


def test_audit_shows_the_generators_lateness_to_the_microsecond(tmp_path: Path) -> None:
    """A good send delay is a fraction of a millisecond: two decimals would hide it."""
    late = {"send_delay_ms": {"p99": 0.1234}, "generator_lag_ms": 0.0567}
    run_dir = simulated.write_run(tmp_path, simulated.sweep([1], trials=1, **late))
    write_report(run_dir)
    text = (run_dir / "report.html").read_text(encoding="utf-8")
    assert '<td class="number">0.123</td>' in text
    assert '<td class="number">0.057</td>' in text


@pytest.mark.parametrize(
    ("engine", "is_pinned", "told", "not_told"),
    [
        ("local", False, ["processes of one machine", "shared the cores"], ["of their own, of"]),
        ("local", True, ["processes of one machine", "of their own, of the"], ["shared the cores"]),
        ("compose", False, ["between containers", "shared the cores"], ["processes of one"]),
        ("attached", False, ["by the leader", "is not known"], ["shared the", "of one machine"]),
    ],
)
def test_page_says_of_cores_and_links_only_what_is_known(
    tmp_path: Path, engine: str, *, is_pinned: bool, told: list[str], not_told: list[str]
) -> None:
    """Where nodes of an attached cluster run, and what they share, nobody has told the tool."""
    rows = simulated.sweep([1], trials=1, engine=engine)
    run_dir = simulated.write_run(tmp_path, rows, engine=engine, scenario={"is_pinned": is_pinned})
    write_report(run_dir)
    text = " ".join((run_dir / "report.html").read_text(encoding="utf-8").split())
    assert all(words in text for words in told)
    assert not any(words in text for words in not_told)


def test_command_on_the_page_can_be_pasted(tmp_path: Path) -> None:
    """What a shell would take apart is quoted."""
    command = ["quorumeter", "sweep", "--threshold", "p99 < 50ms"]
    run_dir = simulated.write_run(tmp_path, simulated.sweep([1], trials=1), command=command)
    write_report(run_dir)
    text = html.unescape((run_dir / "report.html").read_text(encoding="utf-8"))
    assert "quorumeter sweep --threshold 'p99 < 50ms'" in text


def test_page_leaves_out_what_its_caption_says_in_words(run_dir: Path) -> None:
    """A column of nothing but "match" takes room from the numbers; one that tells more stays."""
    write_report(run_dir)
    text = (run_dir / "report.html").read_text(encoding="utf-8")
    assert "All replicas matched" in text
    assert '<td class="match">' not in text
    rows = simulated.sweep()
    rows[4]["parity"] = {"status": "error", "replicas": []}
    simulated.write_run(run_dir, rows)
    write_report(run_dir)
    assert '<td class="match">' in (run_dir / "report.html").read_text(encoding="utf-8")


def test_page_escapes_what_the_run_contains(tmp_path: Path) -> None:
    """Reasons, details and settings are shown as text, whatever they hold."""
    evil = "<script>alert(1)</script>"
    parity = {"status": "error", "replicas": [{"url": "u", "status": "error", "detail": evil}]}
    rows = simulated.sweep([1], trials=1, stamp="invalid", reason=evil, parity=parity)
    run_dir = simulated.write_run(tmp_path, rows, scenario={"name": evil}, command=[evil])
    write_report(run_dir)
    text = (run_dir / "report.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert html.escape(evil, quote=False) in text


def test_command_of_a_run_can_be_pasted_into_a_shell(tmp_path: Path) -> None:
    """A threshold has spaces and a sign that a shell would take for its own."""
    command = ["quorumeter", "sweep", "--threshold", "p99 < 50ms", "--out", "my runs"]
    run_dir = simulated.write_run(tmp_path, simulated.sweep([0], trials=1), command=command)
    write_report(run_dir)
    page = html.unescape((run_dir / "report.html").read_text(encoding="utf-8"))
    (shown,) = re.findall(r"quorumeter sweep --threshold[^\n]*?my runs'", page)
    assert shlex.split(shown) == command


def numbers_of(block: Any) -> set[str]:
    """Return how a block's percentiles could be written, with three decimals or as stored."""
    return {repr(block[name]) for name in ("mean", "p50", "p95", "p99", "max") if block[name]}


def test_latency_of_a_cell_that_is_not_ok_is_in_no_output(tmp_path: Path) -> None:
    """Neither the summary nor pages, nor a spectrum's file of an earlier drawing, quote it."""
    rows = simulated.sweep([0, 1, 2])
    run_dir = simulated.write_run(tmp_path, rows)
    before = json.loads((write_report(run_dir), run_dir / "summary.json")[1].read_bytes())
    marked = [r | ({"stamp": "saturated", "reason": "x"} if r["k"] == 1 else {}) for r in rows]
    simulated.write_run(run_dir, marked)
    write_report(run_dir)
    hidden = numbers_of(before["cells"][1]["response_ms"])
    assert hidden
    outputs = [run_dir / "summary.json", run_dir / "perf_summary.json"]
    assert not any(number in path.read_text() for path in outputs for number in hidden)
    mean = f"{before['cells'][1]['response_ms']['mean']:.1f}"
    for name in ("report.md", "report.html", "quorum_vs_latency.svg"):
        text = (run_dir / name).read_text(encoding="utf-8")
        assert not re.search(rf"[>|] ?{re.escape(mean)}\b", text)
    assert not (run_dir / "response_k1.hgrm").exists()
    assert (run_dir / "response_k2.hgrm").exists()


def test_empty_run_gives_a_readable_report(tmp_path: Path) -> None:
    """A run that ended before its first trial says so in every page."""
    run_dir = simulated.write_run(tmp_path, [], status="interrupted")
    summary = write_report(run_dir)
    assert summary.verdict == "unknown"
    for name in ("report.html", "report.md", "summary.json"):
        text = (run_dir / name).read_text(encoding="utf-8")
        assert "No trial was finished" in text
        assert "interrupted" in text


def test_perf_summary_has_the_original_form(run_dir: Path) -> None:
    """The original workload's reader finds its names, and the worst parity of each replica."""
    rows = simulated.sweep()
    bad = {"url": "http://127.0.0.1:8002", "status": "mismatch", "mismatch_keys": ["a"]}
    rows[4]["parity"] = {"status": "mismatch", "replicas": [bad]}
    simulated.write_run(run_dir, rows)
    summary = write_report(run_dir)
    found = json.loads((run_dir / "perf_summary.json").read_bytes())
    assert found["leader_url"] == simulated.LEADER_URL
    assert found["results"] == [
        {"quorum": cell.k, "avg_latency_ms": cell.response_ms.mean} for cell in summary.cells
    ]
    assert bad in found["parity"]
    assert len(found["parity"]) == 5
    assert {"url": "http://127.0.0.1:8001", "status": "match"} in found["parity"]
    assert (run_dir / found["plot"]).is_file()


def test_unreadable_run_writes_nothing(tmp_path: Path) -> None:
    """A folder that is no run stays as it was."""
    with pytest.raises(UnreadableRunError):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def make_runs(root: Path, *names: str) -> list[Path]:
    """Folders that look like runs below a root."""
    runs = [root / "writes" / name for name in names]
    for run in runs:
        run.mkdir(parents=True)
        (run / "manifest.json").write_text(run.name)
    return runs


def refuse_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system on which this user may make no links."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("a required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", refuse)


def test_latest_is_a_relative_link_that_moves(tmp_path: Path) -> None:
    """The link works after the root is moved, and each report replaces it, also a broken one."""
    root = tmp_path / "r"
    one, two = make_runs(root, "one", "two")
    assert point_latest(root, one) == ""
    shutil.rmtree(one)
    assert point_latest(root, two) == ""
    assert (root / "latest").readlink() == Path("writes/two")
    root.rename(tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / "latest").is_dir()


def test_latest_is_a_copy_where_links_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without links the files are copied, over an earlier copy or link, and links come back."""
    runs = make_runs(tmp_path, "one", "two", "three", "four")
    latest = tmp_path / "latest"
    point_latest(tmp_path, runs[0])
    with monkeypatch.context() as patched:
        refuse_links(patched)
        for run in runs[1:3]:
            assert point_latest(tmp_path, run) == ""
            assert not latest.is_symlink()
            assert (latest / "manifest.json").read_text() == run.name
    point_latest(tmp_path, runs[3])
    assert latest.is_symlink()
    assert (latest / "manifest.json").read_text() == "four"
    assert {path.name for path in tmp_path.iterdir()} == {"latest", "writes"}


@pytest.mark.parametrize("kind", ["folder", "file", "link", "empty", "inside"])
@pytest.mark.parametrize("has_links", [True, False])
def test_what_is_called_latest_and_was_not_made_here_stays(
    tmp_path: Path, kind: str, *, has_links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user's folder, file or link of that name is left as it is, and a sentence says so."""
    root = tmp_path / "r"
    (run,) = make_runs(root, "one")
    latest, elsewhere = root / "latest", tmp_path / "elsewhere"
    (elsewhere / "thesis").mkdir(parents=True)
    (elsewhere / "thesis" / "thesis.tex").write_text("mine")
    if kind == "file":
        latest.write_text("mine")
    elif kind == "link":
        latest.symlink_to(elsewhere, target_is_directory=True)
    elif kind == "inside":
        elsewhere.rename(root / "elsewhere")
        latest.symlink_to("elsewhere/thesis", target_is_directory=True)
    elif kind == "empty":
        latest.mkdir()
    else:
        (elsewhere / "thesis").rename(latest)
    before = {path: path.is_dir() or path.read_bytes() for path in sorted(tmp_path.rglob("*"))}
    if not has_links:
        refuse_links(monkeypatch)
    assert str(latest) in point_latest(root, run)
    after = {path: path.is_dir() or path.read_bytes() for path in sorted(tmp_path.rglob("*"))}
    assert after == before


@pytest.mark.parametrize("name", COPIED)
@pytest.mark.parametrize("kind", ["file", "link", "broken link", "folder"])
def test_file_of_the_root_that_was_not_made_here_stays(run_dir: Path, name: str, kind: str) -> None:
    """The original workload's own results have these names; a sentence says where ours are."""
    root = run_dir.parents[1]
    mine, target = root / "mine", root / name
    if kind == "file":
        target.write_text("mine")
    elif kind == "folder":
        (target / "thesis").mkdir(parents=True)
    else:
        target.symlink_to(mine)
        if kind == "link":
            mine.write_text("mine")
    write_report(run_dir)
    (refusal,) = publish(root, run_dir)
    assert str(target) in refusal
    assert str(run_dir / name) in refusal
    assert target.is_symlink() == ("link" in kind)
    assert target.is_dir() == (kind == "folder")
    if kind in {"file", "link"}:
        assert target.read_text() == "mine"
    else:
        assert not mine.exists()


def test_files_of_an_earlier_run_in_the_root_are_replaced(run_dir: Path) -> None:
    """The root shows the last run."""
    root = run_dir.parents[1]
    write_report(run_dir)
    publish(root, run_dir)
    later = simulated.write_run(run_dir.with_name("later"), simulated.sweep([0, 1]))
    write_report(later)
    assert publish(root, later) == []
    for name in COPIED:
        assert (root / name).read_bytes() == (later / name).read_bytes()
        assert (root / name).read_bytes() != (run_dir / name).read_bytes()


def test_what_a_killed_run_left_is_not_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container each run has the same pid: no name may be taken twice."""
    one, two = make_runs(tmp_path, "one", "two")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(5, "killed")))
        assert "killed" in point_latest(tmp_path, one)
    assert point_latest(tmp_path, two) == ""
    assert (tmp_path / "latest").resolve() == two.resolve()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_files_are_as_public_as_the_user_wants_files_to_be(
    tmp_path: Path, mask: int, mode: int
) -> None:
    """The umask decides who may read a report, as of every other file."""
    before = os.umask(mask)
    try:
        replace_file(tmp_path / "summary.json", b"{}")
    finally:
        os.umask(before)
    assert (tmp_path / "summary.json").stat().st_mode & 0o777 == mode


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be replaced stays whole, and no temporary file is left."""
    path = tmp_path / "summary.json"
    replace_file(path, b"old")

    def refuse(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="no space"):
        replace_file(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]
    assert path.read_bytes() == b"old"


def test_report_is_cheap_to_import() -> None:
    """A command line that only mentions reports loads neither matplotlib nor scipy."""
    code = (
        "import sys, orchestration.report.write, orchestration.report.console;"
        "print([m for m in ('matplotlib', 'scipy', 'jinja2') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_histograms_of_a_run_are_those_of_its_figures(run_dir: Path) -> None:
    """The simulated rows are consistent: text, histogram and figures tell the same."""
    row = read_run(run_dir).rows[4]
    histogram = histograms.decode(row.operations["write"].histograms["response"])
    assert histograms.describe_ms(histogram)["p99"] == row.response_ms.p99
