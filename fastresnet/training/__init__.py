"""The step, its capture, the loop, the choice of hard images, evaluation; and `experiment`, where rooms meet.

Refuses to write files and to print.
"""
