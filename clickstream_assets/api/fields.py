"""Fields of answers, made from the tables' columns."""

from collections.abc import Iterable
from datetime import UTC, datetime

import pyarrow as pa
from apiflask import Schema, fields

from clickstream_assets.catalogue import Column


def iso_utc(time: datetime) -> str:
    """Return the time as ISO 8601 in UTC, ending in Z."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


class UtcTime(fields.DateTime):
    """ISO 8601 in UTC, ending in Z."""

    SERIALIZATION_FUNCS = {"iso": iso_utc}


def _type_of(arrow: pa.DataType) -> type[fields.Field]:
    if pa.types.is_timestamp(arrow):
        return UtcTime
    if pa.types.is_date(arrow):
        return fields.Date
    if pa.types.is_decimal(arrow) or pa.types.is_floating(arrow):
        return fields.Float
    if pa.types.is_integer(arrow):
        return fields.Integer
    if pa.types.is_boolean(arrow):
        return fields.Boolean
    return fields.String


def field_of(column: Column) -> fields.Field:
    """Return the JSON field of a table's column."""
    options = {
        "required": True,
        "allow_none": column.nullable,
        "metadata": {"description": column.description},
    }
    if pa.types.is_list(column.type):
        return fields.List(_type_of(column.type.value_type)(), **options)
    return _type_of(column.type)(**options)


def schema_of(name: str, columns: Iterable[Column], /, **others: fields.Field) -> type[Schema]:
    """Return the schema of a row: its columns, and further fields after them."""
    return Schema.from_dict({**{column.name: field_of(column) for column in columns}, **others}, name=name)
