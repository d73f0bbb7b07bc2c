"""A trained network, used: predictions, export, Grad-CAM, model card.

Refuses to train.
"""
