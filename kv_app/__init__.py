"""The replicated key-value store: one leader, n followers, semi-synchronous replication.

It knows nothing of benchmarks. ``docs/semantics.md`` says what it promises.
"""

__version__ = "0.1.0"
