"""Cases and how they are timed: the time each gets, its row, suites, and the processes that repeat them.

Refuses to compare machines.
"""
