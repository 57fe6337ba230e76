"""What can go wrong on the local stack."""


class LocalStackError(RuntimeError):
    """Something a user can mend; the message names the file, port or program, its state and the fix."""
