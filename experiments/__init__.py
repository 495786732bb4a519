"""Experiments: learning runs, benchmarks and plots, with a log of what they showed."""
