"""How the cluster goes on without its leader: decisions only, no I/O. ``docs/protocol.md``."""
