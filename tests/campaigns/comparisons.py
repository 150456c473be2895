"""Compares real runs whose truth is known: the same store with itself, and with a slower one.

A/A: the blocks of one long run are split at random in two, again and again; hardly ever may a cell
be called changed. A/B: a store whose median is a tenth slower has to be called slower. It is slower
by longer link delays, just as much as the median of the first run asks for.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import dataclass

import msgspec

from orchestration.analysis.theory import QuorumWait
from orchestration.report.comparison import Comparison, compare
from orchestration.report.comparison_words import BETTER, WORSE, percent
from orchestration.report.labels import labels
from orchestration.report.records import Run, read_run
from tests.campaigns.campaign import Stage, Violation, conduct, parser_of

FOLLOWERS, WRITE_QUORUM = 5, 3
MAX_DELAY_MS = 20.0
DECLARED = WORSE + BETTER
# One trial of hundreds that the machine disturbed would make its cell unknown in every split: its
# block is left out, as long as most are left.
LEAST_SOUND = 0.75
# A comparison that the tool itself refuses, since a run may not be quoted, is made again.
SPARE_PAIRS = 3
# Valid, and unknown: a cell that may not be quoted is seen where it is compared.
SOUND_EXITS = (0, 2)
STOP_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Form:
    """How much is measured.

    Attributes:
        quorums: the k of the long run.
        long_blocks: its blocks.
        splits: in how many ways it is split.
        allowed_share: of the cells of all splits, how many may be called changed.
        pairs: how many times the slower store is compared.
        blocks: of each of those runs.
        needed: in how many of these comparisons it has to be called slower.
        slower: by how much its median is longer, as a share.
        rate_per_s: of writes.
        duration_s: of a trial.
    """

    quorums: str
    long_blocks: int
    splits: int
    allowed_share: float
    pairs: int
    blocks: int
    needed: int
    slower: float
    rate_per_s: int
    duration_s: int


FULL = Form("0-5", 40, 100, 0.02, 10, 10, 9, 0.1, 200, 3)
SHORT = Form("3", 12, 50, 0.02, 1, 4, 1, 0.5, 200, 1)


def campaign(stage: Stage) -> str:
    """Splits one long run, then compares runs of a store with those of a slower one."""
    form = SHORT if stage.options.short else FULL
    parts = []
    if stage.options.part != "slower":
        parts.append(split(stage, form))
    if stage.options.part != "same":
        parts.append(slow_down(stage, form))
    return "; ".join(parts)


def split(stage: Stage, form: Form) -> str:
    """A/A: random halves of one run."""
    run = sweep(stage, form, "same", form.quorums, form.long_blocks, MAX_DELAY_MS)
    blocks = sound_blocks(run)
    if len(blocks) < LEAST_SOUND * form.long_blocks:
        raise Violation(f"Only {len(blocks)} of {form.long_blocks} blocks may be quoted.")
    alarms: list[str] = []
    verdicts: Counter[str] = Counter()
    cells = 0
    for _ in range(form.splits):
        chosen = set(stage.random.sample(blocks, len(blocks) // 2))
        found = compare(halved(run, chosen), halved(run, set(blocks) - chosen))
        cells += len(found.cells)
        verdicts.update(figure.verdict for _, _, figure in found.figures())
        alarms += alarms_of(found)
    stage.say(f"  {form.splits} splits of {len(blocks)} blocks: {told(verdicts)}")
    sentence = f"{len(alarms)} of {cells} cells of A/A splits called changed"
    if len(alarms) > form.allowed_share * cells:
        raise Violation(f"{sentence}, {form.allowed_share:.0%} are allowed.", alarms)
    return sentence


def slow_down(stage: Stage, form: Form) -> str:
    """A/B: runs of the store and of a slower one, in turns."""
    quorums, max_delay_ms = str(WRITE_QUORUM), 0.0
    lines: list[str] = []
    declared = compared = 0
    for pair in range(form.pairs + SPARE_PAIRS):
        if compared == form.pairs:
            break
        base = sweep(stage, form, f"base{pair}", quorums, form.blocks, MAX_DELAY_MS)
        max_delay_ms = max_delay_ms or slower_delay_ms(base, form.slower)
        new = sweep(stage, form, f"new{pair}", quorums, form.blocks, max_delay_ms)
        figure = compare(base, new).cells[0].figures["p50"]
        low, estimate, high = map(percent, figure.change_percent or (0.0, 0.0, 0.0))
        floor = percent(figure.floor_percent or 0.0, sign=False)
        line = f"p50 {estimate}, {low} to {high}, floor {floor}: {figure.verdict} {figure.reason}"
        stage.say(f"  pair {pair + 1}: {line}")
        lines.append(line)
        declared += figure.verdict == "slower"
        compared += figure.verdict != "unknown"
    if compared < form.pairs:
        raise Violation(f"Only {compared} of {form.pairs} comparisons could be made.", lines)
    sentence = (
        f"a median that is {form.slower:.0%} longer (delays 0:{max_delay_ms:.2f} instead of "
        f"0:{MAX_DELAY_MS:g} ms, k={WRITE_QUORUM}) called slower in {declared} of {form.pairs} "
        f"comparisons of {form.blocks} blocks"
    )
    if declared < form.needed:
        raise Violation(f"{sentence}, {form.needed} are needed.", lines)
    return sentence


def slower_delay_ms(base: Run, share: float) -> float:
    """The longest link delay with which the median of a run would be longer by a share of it."""
    medians = [row.response_ms.p50 for row in base.rows if row.response_ms.p50]
    median_ms = sum(medians) / len(medians)
    of_delay = QuorumWait(FOLLOWERS, WRITE_QUORUM, 0.0, 1.0).percentile_ms(50)
    return MAX_DELAY_MS + share * median_ms / of_delay


def sweep(
    stage: Stage, form: Form, name: str, quorums: str, blocks: int, max_delay_ms: float
) -> Run:
    """A run, measured as a user measures it.

    Raises:
        Violation: The sweep failed, or replicas differed.
    """
    out = stage.room(name)
    command = [sys.executable, "-m", "orchestration", "sweep", "--quiet"]
    command += ["--k", quorums, "--trials", str(blocks), "--rate", str(form.rate_per_s)]
    command += ["--duration", str(form.duration_s), "--followers", str(FOLLOWERS)]
    command += ["--delay", f"0:{max_delay_ms:.3f}", "--seed", str(stage.random.getrandbits(32))]
    code, said = run_to_its_end([*command, "--out", str(out)])
    run = read_run(out / "latest")
    if code not in SOUND_EXITS or run.manifest.status != "complete":
        raise Violation(f"The sweep {name} ended with {code}.", said.splitlines())
    return run


def run_to_its_end(command: list[str]) -> tuple[int, str]:
    """The exit code of a command, and what it printed; one that is stopped ends its nodes first.

    `subprocess.run` would kill it a quarter of a second after Ctrl-C, and its nodes would stay.
    """
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            said, _ = process.communicate()
        except BaseException:
            process.terminate()
            process.communicate(timeout=STOP_TIMEOUT_S)
            raise
        return process.returncode, said


def sound_blocks(run: Run) -> list[int]:
    """The blocks whose trials are all ok."""
    return sorted(
        {row.block for row in run.rows} - {row.block for row in run.rows if row.stamp != "ok"}
    )


def halved(run: Run, blocks: set[int]) -> Run:
    """The run as if it had had only these blocks."""
    return msgspec.structs.replace(run, rows=[row for row in run.rows if row.block in blocks])


def alarms_of(found: Comparison) -> list[str]:
    """A line for each cell with a figure that is called changed."""
    lines = []
    for cell, label in zip(found.cells, labels(found.cells), strict=True):
        changed = [
            f"{name} {figure.verdict} {percent(figure.change_percent[1])}"
            for name, figure in cell.figures.items()
            if figure.verdict in DECLARED and figure.change_percent
        ]
        if changed:
            lines.append(f"{label}: {', '.join(changed)}")
    return lines


def told(verdicts: Counter[str]) -> str:
    """How often each verdict was given."""
    return ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())


if __name__ == "__main__":
    parser = parser_of("comparisons", __doc__ or "")
    parser.add_argument("--part", choices=["same", "slower"], help="one of the two alone")
    conduct(parser, campaign)
