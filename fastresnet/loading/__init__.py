"""Finished batches, whoever makes them: from memory, streamed from a beton, or by torchvision; one interface.

Refuses to know models and training.
"""
