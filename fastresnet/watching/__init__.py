"""What watches over a run: that it goes on, that its numbers stay finite, that a step fits into memory.

Refuses to train, to keep anything but hang.txt, and to let a run end without a word.
"""
