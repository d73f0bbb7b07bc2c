"""Several processes that train one model: they join, agree, watch each other, and send each other tensors.

Refuses to start them (torchrun does), to know settings, models and data, and to write files.
"""
