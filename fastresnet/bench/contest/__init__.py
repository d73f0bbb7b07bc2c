"""Loaders against each other, ours and rivals', proved alike first and timed in turns.

Refuses to time what disagrees.
"""
