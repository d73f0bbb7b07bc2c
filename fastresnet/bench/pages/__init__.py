"""Benchmark results as pages.

Refuses to measure and to judge.
"""
