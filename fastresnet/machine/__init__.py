"""What runs it: the clock, the hardware and its limits, number formats, memory, processes.

Refuses to know models, data and settings.
"""
