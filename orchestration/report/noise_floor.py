"""``noise_floor.json``: by how much two runs of one scenario differ on a machine.

``quorumeter calibrate`` writes it, ``quorumeter compare`` calls no smaller change one. Fields:
``schema``, ``created_at`` (UTC), ``machine`` (as in a run's manifest), ``seed``, ``runs`` (their
names), ``conditions`` (the scenario's settings, as in a manifest) and ``percent``: by k and figure,
in percent, the 95% quantile over all pairs of runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from orchestration.analysis.noise import Calibrated
from orchestration.report.records import UnreadableRunError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FILE_NAME = "noise_floor.json"
SCHEMA = 1
# What makes a machine the same one; its kernel and Python may be newer.
HARDWARE = ("machine_id", "cpu", "cores", "cpu_quota", "memory_gib")


class NoiseFloor(msgspec.Struct, frozen=True, kw_only=True):
    """A machine's noise floor; see the module's head for the fields."""

    schema: int = SCHEMA
    created_at: str
    machine: dict[str, Any]
    seed: int
    runs: list[str]
    conditions: dict[str, Any]
    percent: dict[int, dict[str, float]]

    def of(self, k: int, ack: str, statistic: str) -> Calibrated | None:
        """Return the floor at k, or the highest of all where k was not calibrated.

        None if there is none, or if acknowledgments meant something else.
        """
        by_k = self.percent.values() if k not in self.percent else [self.percent[k]]
        percent = max((by[statistic] for by in by_k if statistic in by), default=None)
        if percent is None or not self.is_for(ack):
            return None
        return Calibrated(percent, self.conditions["trials"])

    def is_for(self, ack: str) -> bool:
        """Whether it was measured with acknowledgments of this meaning."""
        return ack in self.conditions["acks"]

    def is_of(self, machine: Mapping[str, Any]) -> bool:
        """Whether it was measured on a machine with this hardware."""
        return all(self.machine.get(part) == machine.get(part) for part in HARDWARE)


class _Conditions(msgspec.Struct):
    """What a floor's use depends on, of its conditions."""

    trials: Annotated[int, msgspec.Meta(ge=1)]
    acks: list[str]


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
    try:
        msgspec.convert(found.conditions, _Conditions)
    except msgspec.ValidationError as error:
        raise UnreadableRunError(f"{path} is no noise floor ({error}): calibrate anew") from error
    return found


def to_json(floor: NoiseFloor) -> bytes:
    """Return the text of ``noise_floor.json``."""
    return msgspec.json.format(msgspec.json.encode(floor), indent=2) + b"\n"
