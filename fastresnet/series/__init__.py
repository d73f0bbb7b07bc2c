"""Several runs as one: seeds, values of one setting, and what they say together.

Refuses to choose among runs: each is listed, failed ones too.
"""
