"""``*.hgrm``: a histogram's percentile distribution in ms, as HdrHistogram's plotter reads it.

The text is that of hdrh's ``output_percentile_distribution``, which goes through all 33,792 buckets
in Python three times, 0.2 s for each histogram; here only filled buckets are looked at.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from orchestration.analysis.histograms import NS_PER_MS, filled_buckets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hdrh.histogram import HdrHistogram

# So many lines from each percentile to the one half as far from 100%: HdrHistogram's own default.
TICKS_PER_HALF_DISTANCE = 5
HEADING = f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}\n\n"


def to_hgrm(histogram: HdrHistogram) -> bytes:
    """Return the text of the file.

    Raises:
        ValueError: The histogram is empty: it has no distribution.
    """
    if not histogram.get_total_count():
        raise ValueError("an empty histogram has no distribution: look at its count first")
    lines = [_line(*step) for step in percentile_steps(histogram)]
    return (HEADING + "".join(lines) + _foot(histogram)).encode("ascii")


def percentile_steps(histogram: HdrHistogram) -> Iterator[tuple[float, float, int]]:
    """Yield (value in ms, percentile, count of values at or below) in steps that halve the rest.

    The last step is 100. Source: HdrHistogram's PercentileIterator.
    """
    lowest_ns, width_ns, counts = filled_buckets(histogram)
    highest_ms = ((lowest_ns + width_ns - 1) / NS_PER_MS).tolist()
    below = np.cumsum(counts).tolist()
    total = below[-1]
    percentile = 0.0
    for value_ms, count in zip(highest_ms, below, strict=True):
        while 100.0 * count / total >= percentile:
            yield value_ms, percentile, count
            percentile += _step(percentile)
            if count == total:
                break
    yield highest_ms[-1], 100.0, total


def _step(percentile: float) -> float:
    half_distance = math.pow(2, math.log(100 / (100.0 - percentile)) / math.log(2) + 1)
    return 100.0 / (TICKS_PER_HALF_DISTANCE * half_distance)


def _line(value_ms: float, percentile: float, count: int) -> str:
    share = percentile / 100
    last = "" if percentile == 100.0 else f" {1 / (1 - share):14.2f}"  # noqa: PLR2004  per cent
    return f"{value_ms:12.3f} {share:2.12f} {count:10d}{last}\n"


def _foot(histogram: HdrHistogram) -> str:
    lowest_ns, width_ns, counts = filled_buckets(histogram)
    middle_ms = (lowest_ns + (width_ns >> 1)) / NS_PER_MS
    mean_ms = float(np.average(middle_ms, weights=counts))
    deviation_ms = math.sqrt(float(np.average((middle_ms - mean_ms) ** 2, weights=counts)))
    max_ms, total = histogram.get_max_value() / NS_PER_MS, histogram.get_total_count()
    return (
        f"#[Mean    = {mean_ms:12.3f}, StdDeviation   = {deviation_ms:12.3f}]\n"
        f"#[Max     = {max_ms:12.3f}, TotalCount     = {total:12.3f}]\n"
        f"#[Buckets = {histogram.bucket_count:12d}, "
        f"SubBuckets     = {histogram.sub_bucket_count:12d}]\n"
    )
