"""``noise_floor.json``: by how much two runs of one scenario differ on a machine.

``quorumeter calibrate`` writes it, ``quorumeter compare`` calls no smaller change one. Fields:
``schema``, ``created_at`` (UTC), ``machine`` (as in a run's manifest), ``seed``, ``runs`` (their
names), ``conditions`` (the scenario's settings, as in a manifest) and ``percent``: by k and figure,
in percent, the 95% quantile over all pairs of runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from orchestration.report.records import UnreadableRunError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FILE_NAME = "noise_floor.json"
SCHEMA = 1
# What makes a machine the same one; its kernel and Python may be newer.
HARDWARE = ("cpu", "cores", "memory_gib")


class NoiseFloor(msgspec.Struct, frozen=True, kw_only=True):
    """A machine's noise floor; see the module's head for the fields."""

    schema: int = SCHEMA
    created_at: str
    machine: dict[str, Any]
    seed: int
    runs: list[str]
    conditions: dict[str, Any]
    percent: dict[int, dict[str, float]]

    def of(self, k: int, statistic: str) -> float | None:
        """Return the floor in percent at k, or the highest of all where k was not calibrated."""
        if k in self.percent:
            return self.percent[k].get(statistic)
        return max((by[statistic] for by in self.percent.values() if statistic in by), default=None)

    def is_of(self, machine: Mapping[str, Any]) -> bool:
        """Whether it was measured on a machine with this hardware."""
        return all(self.machine.get(part) == machine.get(part) for part in HARDWARE)


def read_noise_floor(path: Path) -> NoiseFloor:
    """Return the noise floor in a file.

    Raises:
        UnreadableRunError: There is none, or it is damaged or of another schema.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=NoiseFloor)
    except OSError as error:
        raise UnreadableRunError(
            f"{path} cannot be read ({error.strerror}): quorumeter calibrate writes one"
        ) from error
    except msgspec.MsgspecError as error:
        raise UnreadableRunError(f"{path} is no noise floor ({error}): calibrate anew") from error
    if found.schema != SCHEMA:
        raise UnreadableRunError(
            f"{path} has schema {found.schema}, this version reads {SCHEMA}: calibrate anew"
        )
    return found


def to_json(floor: NoiseFloor) -> bytes:
    """Return the text of ``noise_floor.json``."""
    return msgspec.json.format(msgspec.json.encode(floor), indent=2) + b"\n"
