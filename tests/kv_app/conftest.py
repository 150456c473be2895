"""What all unit tests of the store share."""

from hypothesis import settings

# A deadline per example fails on a machine that is busy with something else.
settings.register_profile("unit", deadline=None)
settings.load_profile("unit")
