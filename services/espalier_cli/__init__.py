"""The `espalier` command: each command a few lines over a package below.

No logic may enter that another program could need.
"""
