"""Statistics and models: pure functions over numbers and histograms."""
