"""Several processes that work on one model, or on many runs: they join, agree, watch each other, and share.

Refuses to start them (torchrun does), to know settings, models and data, and to write files.
"""
