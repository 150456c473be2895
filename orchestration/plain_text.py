"""Text that is not ours, such as a node's name: shown as it is, and never obeyed.

A terminal takes escape sequences for orders, and marks of writing direction reorder what stands
around them. Here they become their escapes: readable, and without an effect.
"""

import re

# C0 and C1 but tab and newline; separators of lines; marks of writing direction; the byte order's.
_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]"
)
_LINE_ENDS = re.compile(r"[\t\n]")


def visible(text: str) -> str:
    """The text, with what a terminal would obey as escapes; lines stay lines."""
    return _UNSEEN.sub(_escaped, text)


def one_line(text: object) -> str:
    """A foreign name or message, as one line: it cannot pass for a line of ours."""
    return _LINE_ENDS.sub(_escaped, visible(str(text)))


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")
