"""What measurements mean: which differences are real, what explains them, what runs cost and will take.

Refuses to measure.
"""
