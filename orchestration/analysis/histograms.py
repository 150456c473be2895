"""HdrHistograms of latencies in nanoseconds: figures in ms, text form, merging.

The recorder's histograms hold integers from 1 ns to 1 h with 3 significant digits, so a value is
known to within one part in 1,024. The mean is taken from bucket midpoints: at most one part in
2,048 off, in practice far less, since the errors of many values cancel. A percentile is the upper
edge of its bucket, as HdrHistogram defines it: "p of all values are at or below this".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from hdrh.histogram import HdrHistogram

from orchestration.load.results import new_histogram

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

NS_PER_MS = 1e6
PERCENTILES = (50.0, 95.0, 99.0)
FIGURES = ("mean", "p50", "p95", "p99", "max")


def describe_ms(histogram: HdrHistogram) -> dict[str, float | None]:
    """Return ``mean``, ``p50``, ``p95``, ``p99`` and ``max`` in ms; each None without values."""
    if not histogram.get_total_count():
        return dict.fromkeys(FIGURES)
    figures: dict[str, float | None] = {"mean": mean_ms(histogram)}
    values_ns = percentiles_ns(histogram, PERCENTILES)
    for level, value_ns in zip(PERCENTILES, values_ns, strict=True):
        figures[f"p{level:.0f}"] = value_ns / NS_PER_MS
    figures["max"] = histogram.get_max_value() / NS_PER_MS
    return figures


def mean_ms(histogram: HdrHistogram) -> float:
    """Return the mean in ms, from bucket midpoints.

    Raises:
        ValueError: The histogram is empty.
    """
    lowest_ns, width_ns, counts = filled_buckets(histogram)
    if not len(counts):
        raise ValueError("an empty histogram has no mean: look at its count first")
    midpoint_ns = lowest_ns + (width_ns - 1) / 2
    return float(np.average(midpoint_ns, weights=counts)) / NS_PER_MS


def percentiles_ns(histogram: HdrHistogram, levels: Sequence[float]) -> list[int]:
    """Return the value in ns that so many percent of the values do not exceed, for each level.

    Raises:
        ValueError: The histogram is empty.
    """
    lowest_ns, width_ns, counts = filled_buckets(histogram)
    if not len(counts):
        raise ValueError("an empty histogram has no percentiles: look at its count first")
    wanted = [histogram.get_target_count_at_percentile(level) for level in levels]
    index = np.searchsorted(np.cumsum(counts), wanted)
    found: list[int] = (lowest_ns + width_ns - 1)[index].tolist()
    return found


def filled_buckets(
    histogram: HdrHistogram,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return (lowest value in ns, width in ns, count) of each bucket that holds a value, ascending.

    hdrh's own iterators go through all 33,792 buckets in Python, 70 ms each time; this is the
    index arithmetic of its ``get_value_from_index`` for all filled buckets at once.
    """
    counts = np.ctypeslib.as_array(histogram.counts).astype(np.int64)
    index = np.flatnonzero(counts)
    half = histogram.sub_bucket_half_count
    exponent = (index >> histogram.sub_bucket_half_count_magnitude) - 1
    step = (index & (half - 1)) + np.where(exponent < 0, 0, half)
    shift = np.maximum(exponent, 0) + histogram.unit_magnitude
    return step << shift, np.int64(1) << shift, counts[index]


def encode(histogram: HdrHistogram) -> str:
    """Return the histogram as HdrHistogram's V2 compressed base64 text."""
    text: bytes = histogram.encode()
    return text.decode("ascii")


def decode(text: str) -> HdrHistogram:
    """Return the histogram that `encode` wrote.

    Raises:
        ValueError: The text is no such histogram.
    """
    try:
        return HdrHistogram.decode(text)
    # hdrh lets through whatever its parts raise: binascii, zlib, struct and errors of its own.
    except Exception as error:
        raise ValueError(f"not an encoded HdrHistogram ({error}): {text[:40]!r}") from error


def merge(histograms: Iterable[Any]) -> HdrHistogram:
    """Return a new histogram with the values of all."""
    total = new_histogram()
    for histogram in histograms:
        total.add(histogram)
    return total
