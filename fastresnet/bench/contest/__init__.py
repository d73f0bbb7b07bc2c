"""Loaders against each other, ours and rivals', proved alike first.

Refuses to time what disagrees.
"""
