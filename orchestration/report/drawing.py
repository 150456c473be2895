"""What all charts share: their style, colours, labels that keep apart, and how they are written.

Figures are made and saved without pyplot, which keeps global state. Colours are those of Okabe
and Ito, which colour-blind readers can tell apart.
"""

from __future__ import annotations

import io
import os
import textwrap
from contextlib import chdir, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from orchestration.report.mark import MADE_BY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.axes import Axes
    from matplotlib.typing import RcKeyType

    from orchestration.report.summary import Cell


@contextmanager
def _settings_left_out() -> Iterator[None]:
    """While matplotlib is imported: hides the user's settings, which may be wrong, or not fit here.

    A shell inside a notebook has an MPLBACKEND that may not be installed, and a matplotlibrc is
    looked for in the working folder first: it is matplotlib's own for the moment.
    """
    backend = os.environ.pop("MPLBACKEND", None)
    found = find_spec("matplotlib")
    try:
        with chdir(Path(found.origin or "").parent / "mpl-data" if found else Path()):
            yield
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend


with _settings_left_out():
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import to_hex
    from matplotlib.figure import Figure

BLUE = "#0072B2"
VERMILLION = "#D55E00"
INK = "#1A1A1A"
GREY = "#595959"
PALE = "#D9D9D9"
# (x, y, text, colour) where a line ends, in data coordinates.
LineEnd: TypeAlias = tuple[float, float, str, str]
# From so many k on, labels get small and the words under the axis give way.
MANY_KS = 10
TITLE_SIZE = 18
FOOTNOTE_CHARACTERS = 125
SIZE_INCHES = (10.0, 6.6)
PNG_DOTS_PER_INCH = 160

STYLE: dict[RcKeyType, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],
    "font.size": 12,
    "text.color": INK,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#EBEBEB",
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "figure.facecolor": "white",
    # Names of runs and machines may hold dollars: no text of ours is a formula.
    "text.parse_math": False,
    # Text stays text: it can be searched, selected and read aloud.
    "svg.fonttype": "none",
    "svg.hashsalt": "quorumeter",
}


def new_figure() -> Figure:
    """Return an empty figure; call it, and draw on it, within `style`."""
    figure = Figure(figsize=SIZE_INCHES)
    FigureCanvasAgg(figure)
    return figure


@contextmanager
def style() -> Iterator[None]:
    """While it lasts, figures are drawn and saved in the charts' style, whatever the user's is."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def to_png(figure: Figure) -> bytes:
    """Return the figure as PNG."""
    return _saved(figure, format="png", dpi=PNG_DOTS_PER_INCH, metadata={"Software": MADE_BY})


def to_svg(figure: Figure) -> bytes:
    """Return the figure as SVG, the same bytes for the same figure."""
    return _saved(figure, format="svg", metadata={"Date": None, "Creator": None})


def _saved(figure: Figure, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, **options)
    return buffer.getvalue()


def set_heading(figure: Figure, title: str, subtitle: str, footnote: str) -> None:
    """Write the finding above, what is drawn below it, and the conditions at the foot."""
    heading = figure.text(0.02, 0.975, title, size=TITLE_SIZE, weight="bold", va="top")
    width = heading.get_window_extent().width / figure.bbox.width
    heading.set_fontsize(TITLE_SIZE * min(1.0, 0.96 / width))
    figure.text(0.02, 0.912, subtitle, size=12, color=GREY, va="top")
    lines = [textwrap.fill(line, FOOTNOTE_CHARACTERS) for line in footnote.splitlines()]
    figure.text(0.02, 0.018, "\n".join(lines), size=9, color=GREY, va="bottom", linespacing=1.4)


def panels(cells: Sequence[Cell]) -> list[tuple[str, list[Cell]]]:
    """Return the cells of each kind of acknowledgment, with a title where there are several."""
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        found.setdefault(cell.ack, []).append(cell)
    titles = {"memory": "acknowledged from memory", "fsync": "acknowledged from disk (fsync)"}
    several = len(found) > 1
    return [(titles.get(ack, ack) if several else "", group) for ack, group in found.items()]


def quorum_colour(k: int, followers: int) -> str:
    """Return a k's own colour, of viridis without its pale end: ordered for any colour vision."""
    return to_hex(mpl.colormaps["viridis"](0.78 * (1 - k / max(1, followers))))


def spread(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Return positions near the given ones, in their order, at least `gap` apart if they fit.

    Args:
        positions: Where labels would like to be, in any order.
        gap: The wished distance; shrunk where so many do not fit between `low` and `high`.
        low: The lowest place.
        high: The highest place.
    """
    count = len(positions)
    if count > 1:
        gap = min(gap, (high - low) / (count - 1))
    order = sorted(range(count), key=lambda index: positions[index])
    placed = [0.0] * count
    floor = low
    for index in order:
        floor = placed[index] = max(positions[index], floor)
        floor += gap
    ceiling = high
    for index in reversed(order):
        ceiling = placed[index] = min(placed[index], ceiling)
        ceiling -= gap
    return placed


def label_line_ends(axes: Axes, ends: Sequence[LineEnd], *, size: float) -> None:
    """Write labels right of the axes at the height of their lines' ends, kept apart.

    Args:
        axes: Scaled already: later changes of the limits would move lines off their labels.
        ends: (x, y, text, colour) of each line's end, in data coordinates.
        size: Of the font, in points.
    """
    to_axes = axes.transData + axes.transAxes.inverted()
    heights = [float(to_axes.transform((x, y))[1]) for x, y, _, _ in ends]
    height_points = axes.get_window_extent().height / axes.figure.dpi * 72
    gap = size * 1.3 / height_points
    for (x, y, text, colour), height in zip(ends, spread(heights, gap, 0.0, 1.0), strict=True):
        axes.annotate(
            text,
            xy=(x, y),
            xytext=(1.03, height),
            textcoords="axes fraction",
            color=colour,
            size=size,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.7, "alpha": 0.6},
        )
