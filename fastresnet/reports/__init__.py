"""Data in, pictures out: metrics, charts, plots and pages.

Refuses to train, and to read anything but a finished run's folder.
"""
