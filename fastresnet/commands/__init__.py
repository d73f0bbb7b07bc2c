"""The commands, one module each: arguments in, one call of the package, words out.

Refuses to compute anything itself.
"""
