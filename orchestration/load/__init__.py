"""The library that runs inside Locust's process."""
