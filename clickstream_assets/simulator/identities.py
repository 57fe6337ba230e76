"""Ids of the simulated shoppers: devices, and when they log in on them.

As all of a shopper they follow from an index and the habits alone, so that runs can follow one another.
"""

from functools import lru_cache
from random import Random
from typing import Literal, NamedTuple

from clickstream_assets.simulator.habits import Habits

Login = Literal["early", "late", "never"]


class Identity(NamedTuple):
    """Ids of a shopper.

    Attributes:
        household: Whoever has the same one shares a device, and comes when the other has left.
        devices: Anonymous ids; none of a shopper who has a user id alone.
        login: When they log in.
        shares_device: Whether somebody else has the same device.
    """

    household: int
    devices: tuple[str, ...] = ()
    login: Login = "early"
    shares_device: bool = False


class Identities:
    """The identities of a shop's shoppers.

    Args:
        habits: How many have what.
        people: The shoppers are those from 1 to so many; above come robots, who share nothing.
    """

    def __init__(self, habits: Habits, people: int) -> None:
        self._habits = habits
        self._people = people
        self.of = lru_cache(maxsize=None)(self._of)
        self._lots = lru_cache(maxsize=None)(_Lots)

    def _of(self, number: int) -> Identity:
        habits = self._habits
        if not habits.anonymous or self._lots(number).anonymous >= habits.anonymous:
            return Identity(number)
        lots = self._lots(number)
        if number > self._people:
            return Identity(number, (f"visitor_{number}",), "never")
        late = lots.login < habits.late_login
        never = not late and lots.login - habits.late_login < habits.never_login
        login: Login = "late" if late else "never" if never else "early"
        first = number - 1 + number % 2
        both = (self._lots(first), self._lots(first + 1))
        if (
            first + 1 <= self._people
            and both[0].shared < habits.shared_device
            and all(its.anonymous < habits.anonymous for its in both)
        ):
            return Identity(first, (f"visitor_{first}",), login, shares_device=True)
        devices = ("", "-phone") if lots.second < habits.second_device else ("",)
        return Identity(number, tuple(f"visitor_{number}{device}" for device in devices), login)


class _Lots:
    """Numbers from 0 to 1 that a shopper draws."""

    def __init__(self, number: int) -> None:
        random = Random(f"identity:{number}")
        self.anonymous, self.login, self.shared, self.second = (random.random() for _ in range(4))
