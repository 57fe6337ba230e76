"""What a user of the simulator can get wrong."""


class SimulatorError(Exception):
    """An option, a file or a server cannot be used; the message names it, its value and the fix."""
