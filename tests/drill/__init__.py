"""The drill: runs are killed, starved and handed damaged files; they must lose nothing and say what is wrong.

`make drill` carries out all of it and prints what was tried, survived, lost and silently wrong.
"""
