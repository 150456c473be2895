"""Runs experiments: starts clusters and the load generator, analyses, reports."""
