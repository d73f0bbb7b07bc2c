"""Benchmarks: what a machine can do, what this program gets out of it, and how two machines or commits
compare."""
