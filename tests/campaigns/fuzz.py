"""Sends nonsense to live nodes: over HTTP, and over the replication channel.

HTTP: by schemathesis every call of the OpenAPI document, on a leader and a follower, with the token
and without; each answer must be declared and of the declared shape, and none may tell of a bug.
Pages: proper requests with one thing wrong, of what a web page could send or what has two meanings.
Channel: a hostile follower towards a leader, a hostile leader towards a follower; each channel must
end with a reason, nothing may be applied, and the cluster must work on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.campaigns.campaign import conduct, parser_of
from tests.campaigns.fuzz_channel import fuzz_channel
from tests.campaigns.fuzz_http import fuzz_http
from tests.campaigns.fuzz_pages import fuzz_pages

if TYPE_CHECKING:
    from tests.campaigns.campaign import Stage

PARTS = {"http": fuzz_http, "pages": fuzz_pages, "channel": fuzz_channel}


def campaign(stage: Stage) -> str:
    """Runs all parts, or the one that was asked for."""
    only = stage.options.only
    done = [fuzz(stage) for name, fuzz in PARTS.items() if only in {None, name}]
    return f"{'; '.join(done)}: all refused, nothing taken, every node alive."


def main() -> None:
    """Runs the campaign."""
    parser = parser_of("fuzz", __doc__ or "")
    parser.add_argument("--only", choices=list(PARTS), help="only this part")
    conduct(parser, campaign)


if __name__ == "__main__":
    main()
