"""Capacity planning: the highest rate within a bound on p99, measured, and what other machines would do, simulated."""
