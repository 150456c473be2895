"""``python -m kv_app`` runs one node; its settings come from the environment."""

import gc

# An import makes much that stays: looking through it over and over took a fifth of a node's start.
# ``main`` switches the collector on again.
gc.disable()

from kv_app.main import main  # noqa: E402

if __name__ == "__main__":
    main()
