"""Which attempts at which epochs a node agrees to. Pure."""

from kv_app.meta import Promise


def allows(promise: Promise | None, wanted: Promise) -> bool:
    """Tells if a node that has given a promise may agree to an attempt at leading an epoch.

    To a newer one, or to the same once more: an epoch belongs to one attempt.

    Args:
        promise: What it has promised so far.
        wanted: What it is asked for.
    """
    return promise is None or wanted.epoch > promise.epoch or wanted == promise
