"""Errors that a user or an operator can mend: one base class, and whether trying again may help."""


class ClickstreamError(Exception):
    """An error that a person can mend; the message names the thing, its state and the fix.

    Whoever reports it shows the message alone, without a traceback. Any other exception is a fault of ours.

    Attributes:
        retryable: Whether the same call may succeed a moment later: a server did not answer, another writer was
            first. False means that it fails until somebody changes something.
    """

    retryable = False

    def __init__(self, message: object, *, retryable: bool | None = None) -> None:
        super().__init__(message)
        if retryable is not None:
            self.retryable = retryable


def is_retryable(error: BaseException) -> bool:
    """Return whether the same call may succeed a moment later: the one policy, of runs and of the streams."""
    if isinstance(error, ClickstreamError):
        return error.retryable
    # A disk or a socket of a library that did not answer.
    return isinstance(error, OSError)


class DiskFullError(ClickstreamError):
    """A disk is full; the message names the folder and how much room there is."""

    retryable = True


class LocalStackError(ClickstreamError):
    """A server of the local stack, or what it needs, cannot be used; the message names the file, port or program."""


class InputError(ClickstreamError):
    """An option, a file or a server that was named cannot be used; the message names it, its value and the fix."""
