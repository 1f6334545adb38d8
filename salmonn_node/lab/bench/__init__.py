"""Benchmarks behind 'salmonn bench'."""
