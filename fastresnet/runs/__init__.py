"""A run and its folder: sessions, checkpoints, records and their schemas, loggers, progress.

Refuses to know how a step is made.
"""
