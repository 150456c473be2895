"""What holds for every test."""

from __future__ import annotations

from hypothesis import settings

# How long an example takes says more about the machine, and who else uses it, than about the code.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
