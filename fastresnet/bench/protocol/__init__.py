"""Records: runs under a fixed protocol, their log, the search for better recipes.

Refuses to choose among runs.
"""
