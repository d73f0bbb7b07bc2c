"""The commands, one module each: `main(argv)` takes the words of a command line and prints what came of it.

Refuses to compute anything itself.
"""
