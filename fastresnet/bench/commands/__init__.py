"""The commands of the benchmarks: their options, what they refuse, and the words they say.

Refuses to measure and to judge: the rooms before it do.
"""
