"""Waits of the streams before they try again, by tenacity's strategies.

The loops around them are ours: each does other work meanwhile, or leaves the next attempt to another process.
"""

from tenacity import RetryCallState, Retrying, wait_exponential

RESTART = wait_exponential(multiplier=1, max=5)
"""Before all queries are started again: whatever was away, they are back soon after it is."""
SIDE_WORK = wait_exponential(multiplier=5, max=60)
"""Before another attempt at what must not stop the windows: the live events, and the work of `Background`."""
DELIVERY = wait_exponential(multiplier=5, max=15 * 60)
"""Before a notification is sent again."""


def wait_after(failures: int, wait: wait_exponential) -> float:
    """Return the seconds to wait after so many failures in a row."""
    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = failures
    return wait(state)
