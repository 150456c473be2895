"""What must be equal for two runs to be compared, and is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from orchestration.report.records import Run

# Settings that may differ: names, chance, and what only adds or removes trials and cells.
FREE_SETTINGS = frozenset({"name", "seed", "trials", "quorums", "acks", "durable", "thresholds"})
# Those that may differ from a calibration's: a floor depends on how much was measured, and of what.
FREE_OF_CALIBRATION = FREE_SETTINGS - {"trials", "quorums", "acks"}
# Facts of the trials themselves; an attached cluster's are not among the settings.
TRIAL_FACTS = (
    "engine",
    "followers",
    "operation",
    "delay_ms",
    "delay_model",
    "warmup_s",
    "duration_s",
)
MACHINE_PARTS = (
    *("machine_id", "cpu", "cores", "cpu_quota", "memory_gib"),
    *("kernel", "python"),
)
GENERATOR_PACKAGES = ("locust", "hdrhistogram")
UNITS = {"_per_s": " (per s)", "_ms": " (ms)", "_s": " (s)", "_bytes": " (bytes)", "_gib": " (GiB)"}


def differences(base: Run, new: Run) -> list[str]:
    """Return what differs, a phrase each: "delay (ms): 0:20 in BASE, 0:22 in NEW"."""
    return settings_that_differ(_conditions(base), _conditions(new), ("BASE", "NEW"))


def settings_that_differ(
    one: Mapping[str, Any],
    other: Mapping[str, Any],
    names: tuple[str, str],
    free: Collection[str] = FREE_SETTINGS,
) -> list[str]:
    """Return a phrase for each setting that both have and that differs.

    Args:
        one: Settings by name, as a manifest has them.
        other: The same of the other side.
        names: What to call the sides.
        free: Those that may differ.
    """
    return [
        f"{_readable(key)}: {_text(one[key])} in {names[0]}, {_text(other[key])} in {names[1]}"
        for key in one
        if key in other and key not in free and _plain(one[key]) != _plain(other[key])
    ]


def _conditions(run: Run) -> dict[str, Any]:
    manifest = run.manifest
    found: dict[str, Any] = dict(manifest.scenario)
    if run.rows:
        found |= {name: getattr(run.rows[0], name) for name in TRIAL_FACTS}
    found |= _known(manifest.machine, MACHINE_PARTS)
    found |= _known(manifest.versions, GENERATOR_PACKAGES)
    return found | {"ack": _acks(run)}


def _acks(run: Run) -> str:
    return " and ".join(sorted({row.ack or run.manifest.ack for row in run.rows}))


def _known(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}


def _plain(value: Any) -> Any:
    """Return the value as JSON has it: of a tuple and a list of the same there is no difference."""
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else value


def _readable(key: str) -> str:
    for suffix, unit in UNITS.items():
        if key.endswith(suffix):
            return key.removesuffix(suffix).replace("_", " ") + unit
    return key.replace("_", " ")


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ":".join(_text(part) for part in value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:.12g}"
    return "none" if value is None else str(value)
