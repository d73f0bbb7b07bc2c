"""The benchmarks: what a machine can do, loaders against each other, records by a fixed protocol, pages.

Refuses to change what it measures.
"""
