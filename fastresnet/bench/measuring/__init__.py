"""Cases and how they are timed: ceilings, loaders, steps, epochs, time to accuracy.

Refuses to compare machines.
"""
