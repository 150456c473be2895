"""Growth is found where memory grows, and not where it comes and goes."""

from __future__ import annotations

import pytest

from tests.campaigns.memory import MIB, Sample, growth_mib_per_min, peaks


def samples(*mib: float) -> list[Sample]:
    """One sample a second."""
    return [Sample(float(at_s), int(each * MIB)) for at_s, each in enumerate(mib)]


def test_growth_is_the_slope_of_the_line() -> None:
    """A tenth of a MiB each second is six a minute."""
    assert growth_mib_per_min(samples(*(100 + second / 10 for second in range(61)))) == (
        pytest.approx(6, rel=0.01)
    )


def test_peaks_of_memory_that_comes_and_goes_do_not_grow() -> None:
    """A saw that ends high has a slope, its peaks have none."""
    saw = samples(*[100, 104] * 15, *[104] * 10)
    assert growth_mib_per_min(saw) > 1
    assert growth_mib_per_min(peaks(saw, 5)) == pytest.approx(0)


def test_peaks_of_memory_that_leaks_grow_as_it_does() -> None:
    """Also beneath a saw."""
    leak = samples(*(100 + second / 10 + second % 3 for second in range(61)))
    assert growth_mib_per_min(peaks(leak, 6)) == pytest.approx(6, rel=0.1)


def test_peaks_leave_out_a_window_that_is_not_full() -> None:
    """Its peak would be too low."""
    assert [peak.bytes for peak in peaks(samples(1, 2, 3, 4, 5), 2)] == [2 * MIB, 4 * MIB]
