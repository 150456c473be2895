"""All links of one leader: how they are made, cut and mended, and shown."""

from collections.abc import Sequence
from typing import Final

from kv_app.bodies import LinkStatus
from kv_app.channel import Link, LinkConfig, LinkOwner, LinkVoters
from kv_app.errors import MalformedError
from kv_app.meta import Promise
from kv_app.replica import Replica

# How many reasons an error names; ``GET /admin/links`` has all.
MAX_REASONS: Final = 2


def make_links(
    urls: Sequence[str], replica: Replica, promise: Promise, owner: LinkOwner, voters: LinkVoters
) -> list[Link]:
    """Returns a link to each follower; they do not connect yet.

    Args:
        urls: The followers'.
        replica: What the leader's node holds.
        promise: The node's, of the epoch that it leads.
        owner: The leader.
        voters: Which followers it lets in.
    """
    settings = replica.settings
    config = LinkConfig(
        leader_id=settings.node_id,
        leader_url=settings.advertise_url,
        cluster_id=replica.meta.cluster_id,
        epoch=promise.epoch,
        attempt=promise.attempt,
        token=settings.cluster_token,
        heartbeat_timeout_s=settings.heartbeat_timeout_s,
        reconnect_max_s=settings.reconnect_max_s,
    )
    return [Link(i, url, config, owner, voters) for i, url in enumerate(urls)]


def switch_link(links: Sequence[Link], node_id: str, *, is_up: bool) -> Link:
    """Cuts the link to a follower, or mends it: fault injection.

    Returns:
        That link.

    Raises:
        MalformedError: No follower with this name was heard.
    """
    for link in links:
        if link.node_id == node_id:
            if is_up:
                link.mend()
            else:
                link.cut()
            return link
    known = ", ".join(link.node_id for link in links if link.node_id) or "none"
    raise MalformedError(f"No follower {node_id!r} was heard; these were: {known}.")


def absence_of(links: Sequence[Link]) -> str:
    """Returns which followers are not connected and why, most of them first; empty if all are."""
    away: dict[str, list[str]] = {}
    for link in links:
        if link.detail and link.is_tried:
            away.setdefault(link.detail, []).append(link.url)
    if not away:
        return ""
    groups = sorted(away.items(), key=lambda group: -len(group[1]))
    parts = [f"{', '.join(urls)} ({reason})" for reason, urls in groups[:MAX_REASONS]]
    more = sum(len(urls) for _, urls in groups[MAX_REASONS:])
    return f"not connected: {'; '.join(parts)}" + (f"; {more} more" if more else "")


def status_of(link: Link, epoch: int) -> LinkStatus:
    """Returns how far a follower is.

    Args:
        link: The one to it.
        epoch: That of the leader.
    """
    held = link.held
    return LinkStatus(
        node_id=link.node_id,
        epoch=epoch if held.max_seq else 0,
        contiguous=held.contiguous,
        max_seq=held.max_seq,
        holes=held.holes,
        connected=link.is_connected,
        learner=link.is_learner or link.gets_state,
        durable=link.is_durable,
        detail=link.detail,
    )
