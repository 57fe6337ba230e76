"""Experiments on recommendations: what is declared of them, and which arm a person or a visitor is in.

The arm is a function of the experiment's name and salt and of the unit alone, so it is the same in every process, and
in every language: no table of assignments has to be kept or asked. A unit is a person as answers name them: a user id,
or of a visitor who is tied to no user `anonymous:` and their id.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from clickstream_assets.catalogue import ALGORITHM_NAMES
from clickstream_assets.catalogue.who import VISITOR
from clickstream_assets.errors import InputError

BUCKETS = 10_000
"""Parts that units are hashed into; an arm has a whole number of them."""
_DIGITS = 13
NAME = "[a-z0-9][a-z0-9_-]{0,63}"
"""Pattern of the names of experiments and arms."""
LEAST_ARMS = 2


class Serves(StrEnum):
    """Kinds of answers that an arm gives."""

    CONTROL = "control"
    """The answer without an experiment."""
    LISTS = "lists"
    """Published lists and popular products, without what was done last."""
    SESSION = "session"
    """Products by the last events, and popular ones; no published lists."""
    POPULARITY = "popularity"
    """Popular products alone."""


LIST_ALGORITHMS = tuple(name for name in ALGORITHM_NAMES if name not in ("buy_again", "popularity"))
"""Algorithms whose lists an arm can answer with, in place of those of the algorithm that is served to all others."""


class Who(StrEnum):
    """Whom an experiment is for."""

    PERSONS = "persons"
    """Users, and visitors who are tied to one."""
    VISITORS = "visitors"
    """Visitors who are tied to no user."""


Metric = Literal["click_through", "conversion", "revenue"]


def _in_buckets(share: float) -> float:
    if abs(share * BUCKETS - round(share * BUCKETS)) > 1e-6:
        raise ValueError("has more than four decimals; round it")
    return share


def _served(name: str) -> str:
    known = [*Serves, *LIST_ALGORITHMS]
    if name not in known:
        raise ValueError(f"is nothing that an arm can serve; write one of {', '.join(known)}")
    return name


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Arm(_Declared):
    """An arm: its name, its share of all units, and what it answers with."""

    name: str = Field(pattern=f"^{NAME}$")
    share: Annotated[float, Field(gt=0, le=1), AfterValidator(_in_buckets)]
    serves: Annotated[str, AfterValidator(_served)] = Serves.CONTROL.value
    """One of `Serves`, or of LIST_ALGORITHMS: as control, with lists of that algorithm."""

    @property
    def buckets(self) -> int:
        """Parts of BUCKETS that are in it."""
        return round(self.share * BUCKETS)

    @property
    def lists_of(self) -> str | None:
        """The algorithm whose lists it answers with; None for the one that is served to all others."""
        return self.serves if self.serves in LIST_ALGORITHMS else None


class Experiment(_Declared):
    """An experiment, as it is declared."""

    name: str = Field(pattern=f"^{NAME}$")
    salt: str = Field("", pattern="^[A-Za-z0-9_-]{0,64}$")
    """Another one gives units other arms."""
    start: AwareDatetime
    end: AwareDatetime | None = None
    """The first moment that it does not run any more; none for without end."""
    who: tuple[Who, ...] = Field(tuple(Who), min_length=1)
    metric: Metric = "conversion"
    """Figures that can decide which arm is better."""
    window_hours: int = Field(24, ge=1, le=24 * 90)
    """Hours from a unit's first exposure in which what it does counts."""
    units: int = Field(20_000, ge=100)
    """Units, of all arms together, with which a decision is expected: it is surest about there, and valid anywhere."""
    arms: tuple[Arm, ...] = Field(min_length=LEAST_ARMS, max_length=20)
    """The first is the one that the others are compared with."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        names = [arm.name for arm in self.arms]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two arms are called {repeated[0]}; give each a name of its own")
        if (total := sum(arm.buckets for arm in self.arms)) > BUCKETS:
            raise ValueError(
                f"the shares of its arms come to {total / BUCKETS:g}; lower them to 1 or less in all"
            )
        if self.end is not None and self.end <= self.start:
            raise ValueError(f"it ends at {self.end}, when or before it starts; set a later end")
        return self

    @property
    def control(self) -> Arm:
        """The arm that the others are compared with."""
        return self.arms[0]

    @property
    def window(self) -> timedelta:
        """Time from a unit's first exposure in which what it does counts."""
        return timedelta(hours=self.window_hours)

    @property
    def list_algorithms(self) -> frozenset[str]:
        """Algorithms whose lists its arms answer with; it cannot run before there are some."""
        return frozenset(filter(None, (arm.lists_of for arm in self.arms)))

    def runs_at(self, now: datetime) -> bool:
        """Return whether units are exposed at a moment."""
        return self.start <= now and (self.end is None or now < self.end)

    def arm_of(self, unit: str) -> Arm | None:
        """Return the arm that a unit is in; None for one that is in none, or that it is not for."""
        if (Who.VISITORS if unit.startswith(VISITOR) else Who.PERSONS) not in self.who:
            return None
        bucket = bucket_of(self.name, self.salt, unit)
        for arm in self.arms:
            if bucket < arm.buckets:
                return arm
            bucket -= arm.buckets
        return None


class Assigned(NamedTuple):
    """An experiment that a unit is in, and the unit's arm of it."""

    experiment: Experiment
    arm: Arm


def bucket_of(name: str, salt: str, unit: str) -> int:
    """Return the part, from 0 to BUCKETS - 1, that a unit is in.

    The first 13 hexadecimal digits of the SHA-256 of `name:salt:unit` in UTF-8, as a number, modulo 10,000. They are 52
    bits, which JavaScript's numbers hold exactly, as SQL's bigint does.
    """
    text = f"{name}:{salt}:{unit}".encode(errors="replace")
    return int(sha256(text).hexdigest()[:_DIGITS], 16) % BUCKETS


def assigned(experiments: Iterable[Experiment], unit: str, now: datetime) -> Assigned | None:
    """Return the experiment that a unit is in at a moment: of several, the first that is declared."""
    for experiment in experiments:
        if experiment.runs_at(now) and (arm := experiment.arm_of(unit)):
            return Assigned(experiment, arm)
    return None


def parse_experiments(text: str, source: str) -> tuple[Experiment, ...]:
    """Read experiments as TOML declares them, in order.

    Args:
        text: such as `[[experiment]]` with `name`, `start` and `[[experiment.arms]]` with `name`, `share` and `serves`.
        source: where it is from, for messages.

    Raises:
        InputError: naming the source, the experiment, its field, the value and the fix.
    """
    try:
        declared = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{source} is no TOML: {error}") from None
    if others := sorted(declared.keys() - {"experiment"}):
        raise InputError(
            f"{source}: {others[0]!r} means nothing here; write [[experiment]] for each experiment"
        )
    tables = declared.get("experiment", [])
    if not isinstance(tables, list):
        raise InputError(f"{source}: write [[experiment]], in two brackets, for each experiment")
    found: dict[str, Experiment] = {}
    for number, table in enumerate(tables, start=1):
        experiment = _experiment(table, number, source)
        if experiment.name in found:
            raise InputError(f"{source}: two experiments are called {experiment.name}; rename one of them")
        found[experiment.name] = experiment
    return tuple(found.values())


def _experiment(table: Any, number: int, source: str) -> Experiment:
    try:
        return Experiment.model_validate(table)
    except ValidationError as error:
        name = table.get("name") if isinstance(table, dict) else None
        where = f"{source}: experiment {number}" + (f" ({name})" if name else "")
        raise InputError("\n  ".join([f"{where}:", *map(_worded, error.errors())])) from None


def _worded(problem: Any) -> str:
    place = ".".join(str(part + 1) if isinstance(part, int) else str(part) for part in problem["loc"])
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "missing":
        return f"{place} is missing"
    if problem["type"] == "extra_forbidden":
        return f"{place} means nothing here; take it out"
    if problem["type"] == "timezone_aware":
        message = "has no time of day with a zone; write it as 2026-06-01T00:00:00Z"
    return f"{place}={problem['input']!r}: {message}" if place else message
