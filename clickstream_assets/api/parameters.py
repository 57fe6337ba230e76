"""Fields of parameters: they accept exactly what the OpenAPI document says; their errors say what that is."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from apiflask import Schema, fields, validators
from marshmallow import ValidationError, pre_load, validates_schema

from clickstream_assets.catalogue import Column

_RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
MAX_WHOLE_NUMBER = 10**18 - 1
_NO_NUL = validators.Regexp(r"^[^\x00]*$", error="must not have a NUL character")


class QueryParameters(Schema):
    """Base of the query strings: a parameter is given once, unless it is a list."""

    error_messages = {"unknown": "is not a parameter of this operation"}

    @pre_load
    def _refuse_repetition(self, data: Any, **_: object) -> Any:
        repeated = {
            name: [f"is given {len(data.getlist(name))} times; give it once"]
            for name, field in self.fields.items()
            if not isinstance(field, fields.List) and len(data.getlist(name)) > 1
        }
        if repeated:
            raise ValidationError(repeated)
        return data

    @validates_schema
    def _refuse_backward_range(self, data: Any, **_: object) -> None:
        if "since" in data and "until" in data and data["since"] > data["until"]:
            raise ValidationError({"until": ["must not be before since"]})


class WholeNumber(fields.Integer):
    """A number of decimal digits from `first` to `last`."""

    def __init__(self, first: int, last: int, **kwargs: Any) -> None:
        message = f"must be a whole number from {first} to {last}"
        super().__init__(
            validate=validators.Range(first, last, error=message),
            error_messages={"invalid": message},
            **kwargs,
        )

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> int | None:
        # int() also takes "1_000", " 1" and other scripts' digits.
        if not re.fullmatch(r"-?[0-9]{1,18}", value):
            raise self.make_error("invalid", input=value)
        return super()._deserialize(value, attr, data, **kwargs)


class Amount(fields.Float):
    """A number from 0 to `last`, in decimal digits."""

    def __init__(self, last: float | None = None, **kwargs: Any) -> None:
        message = f"must be a number from 0 to {last}" if last else "must be a number of at least 0"
        super().__init__(
            validate=validators.Range(0, last, error=message),
            error_messages=dict.fromkeys(("invalid", "special", "too_large"), message),
            **kwargs,
        )

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> float | None:
        # float() also takes "1_000", " 1", "nan" and other scripts' digits.
        if not re.fullmatch(r"-?[0-9]{1,18}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,3})?", value):
            raise self.make_error("invalid", input=value)
        return super()._deserialize(value, attr, data, **kwargs)


class Text(fields.String):
    """Any text that PostgreSQL can hold, of a length from `min_length` to `max_length` characters."""

    def __init__(self, min_length: int = 0, max_length: int | None = None, **kwargs: Any) -> None:
        rules: list[validators.Validator] = [_NO_NUL]
        if min_length or max_length:
            message = f"must have {min_length} to {max_length} characters"
            rules.append(validators.Length(min_length, max_length, error=message))
        super().__init__(validate=rules, **kwargs)


class Choice(fields.String):
    """One of a few words."""

    def __init__(self, *choices: str, **kwargs: Any) -> None:
        super().__init__(
            validate=validators.OneOf(choices, error=f"must be one of {', '.join(choices)}"), **kwargs
        )


class Flag(fields.Boolean):
    """`true` or `false`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            truthy={"true"}, falsy={"false"}, error_messages={"invalid": "must be true or false"}, **kwargs
        )


class Day(fields.Date):
    """A date, `YYYY-MM-DD`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(error_messages={"invalid": "must be a date such as 2024-05-31"}, **kwargs)


class Moment(fields.DateTime):
    """A time with its zone, as in RFC 3339."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            error_messages={"invalid": "must be a time such as 2024-05-31T12:00:00Z (write + as %2B)"},
            **kwargs,
        )

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> datetime:
        # ISO 8601 also has weeks, dates alone and times without a zone.
        if not _RFC_3339.fullmatch(value):
            raise self.make_error("invalid", input=value, obj_type=self.OBJ_TYPE)
        moment = super()._deserialize(value.upper(), attr, data, **kwargs)
        try:
            # PostgreSQL takes no offset of 16 hours or more.
            return moment.astimezone(UTC)
        except OverflowError:
            # Before the year 1 or after 9999 in UTC: as a bound, the first or last moment is the same.
            return (datetime.min if moment.year == 1 else datetime.max).replace(tzinfo=UTC)


def path_of(**parts: str) -> type[Schema]:
    """Return the schema of an address's variable parts, which are texts, by what they mean."""
    return Schema.from_dict(
        {
            name: Text(required=True, metadata={"description": meaning, "minLength": 1})
            for name, meaning in parts.items()
        },
        name="Path",
    )


def parameter_of(column: Column, description: str) -> fields.Field:
    """Return the field of a parameter that a column's values are compared with.

    Raises:
        TypeError: there is no parameter for the column's type.
    """
    metadata = {"description": description}
    if column.values:
        return Choice(*column.values, metadata=metadata)
    if pa.types.is_integer(column.type):
        return WholeNumber(-MAX_WHOLE_NUMBER, MAX_WHOLE_NUMBER, metadata=metadata)
    if pa.types.is_string(column.type):
        return Text(metadata=metadata)
    if pa.types.is_boolean(column.type):
        return Flag(metadata=metadata)
    if pa.types.is_date(column.type):
        return Day(metadata=metadata)
    if pa.types.is_timestamp(column.type):
        return Moment(metadata=metadata)
    raise TypeError(f"A list cannot be filtered by {column.name}: no parameter has the type {column.type}")
