"""What samples say: differences beyond noise, the ceiling that explains them, predictions.

Refuses to measure.
"""
