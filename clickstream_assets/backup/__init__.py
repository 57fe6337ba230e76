"""Backups of the whole house, taken while it works, and their return into an empty one.

`create.py` says in which order the stores are copied and why that fits together, `restore.py` how they come back, and
`manifest.py` what a backup says of itself. A folder or an object store, as `place.py` has it, may hold several.
"""
