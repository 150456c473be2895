"""Locust's command line and web form, extended by the load's own options.

Both fill one `LoadPlan`, and both get its message when a value will not do.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from orchestration.load.plan import ARRIVALS, KEY_CHOICES, MIXES, READ_FROM, LoadPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from locust.argument_parser import LocustArgumentParser

# Web forms and namespaces hold values by these names, LoadPlan by the second.
_FIELDS = {
    "rate": "rate_per_s",
    "arrivals": "arrivals",
    "warmup": "warmup_s",
    "duration": "duration_s",
    "keys": "keys",
    "key_choice": "key_choice",
    "value_bytes": "value_bytes",
    "mix": "mix",
    "read_share": "read_share",
    "read_from": "read_from",
    "max_in_flight": "max_in_flight",
    "load_seed": "seed",
    "trial": "trial",
    "total_writes": "total_writes",
    "write_quorum": "write_quorum",
}


def add_options(parser: LocustArgumentParser, defaults: Mapping[str, str]) -> None:
    """Adds the load's options to Locust's.

    Args:
        parser: Locust's, which also draws the web form.
        defaults: a scenario's own defaults, as typed, of these or Locust's options.
    """
    # Not in a group of their own: Locust shows only the parser's own arguments in its form.
    plain = LoadPlan()

    def option(name: str, kind: Callable[[str], object], help_text: str, **more: Any) -> None:
        field = _FIELDS[name.removeprefix("--").replace("-", "_")]
        parser.add_argument(
            name, type=_checked(name, kind), default=getattr(plain, field), help=help_text, **more
        )

    option("--rate", float, "Requests offered per second; 0: closed loop, Locust's users in turn")
    option("--arrivals", str, "Spacing of the requests", choices=list(ARRIVALS))
    option("--warmup", float, "Seconds before anything is measured")
    option("--duration", float, "Seconds to measure; 0: until stopped")
    option("--keys", int, "Number of keys")
    option("--key-choice", str, "Distribution of requests over the keys", choices=list(KEY_CHOICES))
    parser.add_argument(
        "--value-bytes",
        type=_checked("--value-bytes", str),
        default=sizes_text(plain.value_bytes),
        help="Size of each value; 64:1024 for sizes between the two",
    )
    option("--mix", str, "Which operations the Ycsb scenario sends", choices=list(MIXES))
    option("--read-share", float, "Share of reads, 0 to 1, in scenarios that mix")
    option("--read-from", str, "Which nodes serve reads", choices=list(READ_FROM))
    option("--max-in-flight", int, "Requests a process may have open; 0: six seconds of the rate")
    option("--load-seed", int, "Seed of arrivals, keys and values")
    option(
        "--trial",
        str,
        "Name of the run among those of one seed, whose values differ from theirs",
        include_in_web_ui=False,
    )
    option("--total-writes", int, "Stop after this many requests (0: never)")
    parser.add_argument(
        "--write-quorum",
        type=_checked("--write-quorum", _quorum_text),
        default="",
        help="Write quorum to set on the leader at the start; empty: leave it as it is",
    )
    parser.add_argument(
        "--results-dir",
        default="",
        help="Folder for exact results and the timeline; empty: only a summary in the log",
        include_in_web_ui=False,
    )
    parser.set_defaults(**defaults)


def plan_from(values: Mapping[str, Any]) -> LoadPlan:
    """The plan that options or form fields describe; a ValueError says which will not do."""
    plain = LoadPlan()
    fields: dict[str, Any] = {}
    for name, field in _FIELDS.items():
        if name not in values:
            continue
        option = f"--{name.replace('_', '-')}"
        kind = _KINDS.get(name) or type(getattr(plain, field))
        fields[field] = _converted(option, kind, values[name])
    return LoadPlan(**fields)


def _converted(option: str, kind: Callable[[Any], object], value: object) -> object:
    try:
        return kind(value)
    except (TypeError, ValueError):
        noun = {float: "a number", _sizes: "bytes, such as 64, or 64:1024"}.get(
            kind, "a whole number"
        )
        msg = f"{option} must be {noun}, not {value!r}"
        raise ValueError(msg) from None


def _checked(option: str, kind: Callable[[str], object]) -> Callable[[str], object]:
    """A converter for argparse that checks the value as the plan would."""
    name = option.removeprefix("--").replace("-", "_")

    def convert(text: str) -> object:
        try:
            plan_from({name: text})
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return kind(text)

    return convert


def _quorum(value: object) -> int | None:
    text = str(value if value is not None else "").strip()
    return int(text) if text else None


def _sizes(value: object) -> tuple[int, int]:
    """The sizes that "64" or "64:1024" stands for."""
    smallest, _, largest = str(value).partition(":")
    return int(smallest), int(largest or smallest)


def sizes_text(sizes: tuple[int, int]) -> str:
    """Sizes as a user types them: "64", or "64:1024"."""
    smallest, largest = sizes
    return str(smallest) if smallest == largest else f"{smallest}:{largest}"


_KINDS: Mapping[str, Callable[[Any], object]] = {"write_quorum": _quorum, "value_bytes": _sizes}


def _quorum_text(text: str) -> str:
    # Locust's form keeps an option's type: text, so that it can be emptied.
    return text.strip()
