"""What ``quorumeter compare`` does: reads two runs, and says what changed between them."""

from pathlib import Path

from orchestration.errors import UsageError
from orchestration.exit_codes import ExitCode
from orchestration.report.comparability import FREE_OF_CALIBRATION, settings_that_differ
from orchestration.report.comparison import Comparison
from orchestration.report.comparison import compare as compare_runs
from orchestration.report.comparison_console import print_comparison
from orchestration.report.comparison_files import NAME, to_json, write_comparison
from orchestration.report.noise_floor import FILE_NAME, NoiseFloor, read_noise_floor
from orchestration.report.numbers import count
from orchestration.report.records import Run, UnreadableRunError, read_run
from orchestration.report.saturation_write import is_saturation
from orchestration.request import DEFAULT_OUT
from orchestration.terminal import make_console, print_json, tell


def compare(
    base_dir: Path,
    new_dir: Path,
    *,
    noise_path: Path | None,
    out: Path | None,
    fails_on_regression: bool,
    is_json: bool,
) -> int:
    """Compare two runs, print what changed, and return the exit code."""
    base, new = read(base_dir), read(new_dir)
    calibration, notes = _calibration(noise_path, (base_dir, new_dir), base, new)
    comparison = compare_runs(base, new, calibration, notes=notes)
    if out is not None:
        write_comparison(comparison, new, out)
        make_console(stderr=True).print(f"Comparison: {out / f'{NAME}.md'}", soft_wrap=True)
    if is_json:
        print_json(to_json(comparison).decode())
    else:
        print_comparison(make_console(), comparison)
    if not fails_on_regression:
        return ExitCode.OK
    code = exit_code(comparison)
    if code is ExitCode.BREACHED:
        tell(f"{new_dir} got worse than {base_dir}: {comparison.sentence}")
    elif code is ExitCode.UNKNOWN:
        tell(f"Not all of {base_dir} could be held against {new_dir}; its notes say why.")
    return code


def exit_code(comparison: Comparison) -> ExitCode:
    """The code of a gate: a change for the worse, or nothing judged, or not all of BASE."""
    if comparison.has_regression:
        return ExitCode.BREACHED
    return ExitCode.UNKNOWN if comparison.has_unjudged_figures else ExitCode.OK


def read(run_dir: Path) -> Run:
    """The run in a folder; UsageError if it holds none, or one that sought saturation."""
    if is_saturation(run_dir):
        raise UsageError(
            f"{run_dir} is a run of quorumeter saturate, whose rates are of its own choosing: "
            "compare runs of quorumeter sweep."
        )
    try:
        return read_run(run_dir)
    except UnreadableRunError as problem:
        raise UsageError(f"{problem}.") from problem


def _calibration(
    named: Path | None, folders: tuple[Path, Path], base: Run, new: Run
) -> tuple[NoiseFloor | None, list[str]]:
    """The noise floor of the machine that both ran on, and what a reader has to know of it."""
    path = named or _find(folders)
    if path is None:
        return None, []
    try:
        floor = read_noise_floor(path)
    except UnreadableRunError as problem:
        if named is not None:
            raise UsageError(f"{problem}.") from problem
        return None, [f"{problem}."]
    if all(floor.is_of(run.manifest.machine) for run in (base, new)):
        return floor, [_describe(floor, path, new)]
    refusal = f"{path} is the noise floor of another machine than that of BASE and NEW"
    if named is not None:
        raise UsageError(f"{refusal}: calibrate there, and name that file.")
    return None, [f"{refusal}, and is left out."]


def _find(folders: tuple[Path, Path]) -> Path | None:
    """The file that ``calibrate`` left: in the root of NEW, else of BASE, else in the usual one."""
    roots = [root for folder in reversed(folders) for root in folder.resolve().parents[:2]]
    paths = [root / FILE_NAME for root in (*roots, DEFAULT_OUT)]
    return next((path for path in paths if path.is_file()), None)


def _describe(floor: NoiseFloor, path: Path, new: Run) -> str:
    names = ("the calibration", "NEW")
    differing = settings_that_differ(
        floor.conditions, new.manifest.scenario, names, FREE_OF_CALIBRATION
    )
    unlike = f" It was measured at other settings: {'; '.join(differing)}." if differing else ""
    runs = count(len(floor.runs), "run")
    return f"Noise floor of the machine from {path}, {runs} of {floor.created_at[:10]}.{unlike}"
