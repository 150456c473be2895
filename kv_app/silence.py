"""When the other end of a channel has been silent for too long."""

from typing import Final

# One look may be late without harm.
LOOKS_PER_TIMEOUT: Final = 4


class Silence:
    """Counts looks at a peer since it was heard last.

    Not time: in that in which this node itself stood still it has read nothing, whatever the peer
    has sent, and so a pause counts as one look.

    Attributes:
        interval_s: Time between two looks.
    """

    def __init__(self, timeout_s: float) -> None:
        self.interval_s = timeout_s / LOOKS_PER_TIMEOUT
        self._looks = 0

    def heard(self) -> None:
        """Something came from the peer."""
        self._looks = 0

    def look(self) -> bool:
        """Looks; returns True if nothing has come for the whole time-out."""
        self._looks += 1
        return self._looks > LOOKS_PER_TIMEOUT
