"""How large what one node tells another may be: types that are checked as a message is decoded."""

from typing import Annotated, Final

from msgspec import Meta

# The highest epoch and seq: what fits into the disk's positions with room to spare. A leader never
# comes so far.
MAX_SEQ: Final = 1 << 62
MAX_NAME_CHARS: Final = 128
MAX_URL_CHARS: Final = 512
MAX_FOLLOWERS: Final = 64
# A value must fit into one frame of the replication channel, with room to spare.
MAX_VALUE_LIMIT_BYTES: Final = 64 * 1024 * 1024
MAX_KEY_LIMIT_BYTES: Final = 1 << 16
MAX_BATCH_LIMIT_OPERATIONS: Final = 100_000
MAX_IDEMPOTENCY_KEY_BYTES: Final = 256
# Of one message: what a follower takes in one turn of its loop.
MAX_BATCH_ENTRIES: Final = 1024
# Of one WebSocket message. Nodes send none in parts, but what is between them may cut it.
MAX_FRAGMENTS: Final = 4096
# What is shown of a text that another node chose freely.
MAX_SHOWN_CHARS: Final = 500

# Characters that would end a line of the log, or steer a terminal that shows it.
_UNPRINTABLE: Final = (
    r"\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
)

Seq = Annotated[int, Meta(ge=0, le=MAX_SEQ)]
# Epochs and positions of entries begin at 1.
Place = Annotated[int, Meta(ge=1, le=MAX_SEQ)]
Quorum = Annotated[int, Meta(ge=0, le=MAX_FOLLOWERS)]
# A name that may be missing.
Label = Annotated[str, Meta(max_length=MAX_NAME_CHARS, pattern=rf"\A[^{_UNPRINTABLE}]*\Z")]
Name = Annotated[
    str, Meta(min_length=1, max_length=MAX_NAME_CHARS, pattern=rf"\A[^{_UNPRINTABLE}]*\Z")
]
Url = Annotated[
    str, Meta(max_length=MAX_URL_CHARS, pattern=rf"\Ahttp://[^\s/?#@{_UNPRINTABLE}]+\Z")
]


def shown(text: str) -> str:
    """Returns what another node said as it may be logged and shown: one line of bounded length."""
    if len(text) > MAX_SHOWN_CHARS:
        text = f"{text[:MAX_SHOWN_CHARS]}…"
    return text if text.isprintable() else repr(text)
