"""What every room may use: files written whole, strict YAML, one wording for numbers, how programs end.

Refuses to know torch, settings, data or anything else of the package.
"""
