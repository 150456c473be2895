"""Who has to agree that an epoch begins. Pure.

A majority of the electors has to be sealed and to hold the base before an epoch opens, so that two
epochs have a node in common. The electors never depend on who leads: two nodes that counted
different sets could both believe in a majority.
"""

from collections.abc import Collection, Sequence

from kv_app.meta import Member


def electors_of(members: Sequence[Member]) -> tuple[str, ...]:
    """Returns the URLs of the electors.

    All members if their number is odd, else all but the first leader.

    Args:
        members: As the cluster was made, the first leader first.
    """
    urls = tuple(member.url for member in members)
    return urls if len(urls) % 2 else urls[1:]


def majority_of(members: Sequence[Member]) -> int:
    """Returns how many electors are more than half of them."""
    return len(electors_of(members)) // 2 + 1


def has_majority(members: Sequence[Member], urls: Collection[str]) -> bool:
    """Tells if some members are a majority of the electors."""
    return sum(url in urls for url in electors_of(members)) >= majority_of(members)


def own_url(members: Sequence[Member], node_id: str, url: str) -> str:
    """Returns which of the members' URLs is a node's own.

    Args:
        members: All of the cluster.
        node_id: The node's name.
        url: Its own idea of its URL, which decides where the name is not known.
    """
    return named_url(members, node_id) or url


def named_url(members: Sequence[Member], node_id: str) -> str | None:
    """Returns the URL of the one member that has a name; None if that name is not known."""
    named = [member.url for member in members if member.node_id == node_id]
    return named[0] if len(named) == 1 else None


def confirmations_of(floor: int, followers: int) -> int:
    """Returns how many followers have to confirm a leader, so that it surely still leads.

    Every promotion seals one of so many followers that hold the base of the epoch: min(f, ⌈n/2⌉).

    Args:
        floor: f.
        followers: n.
    """
    return min(floor, (followers + 1) // 2)
