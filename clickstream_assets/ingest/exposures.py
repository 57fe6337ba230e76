"""Exposures of experiments, from KAFKA_EXPOSURES_TOPIC to a table, each record once."""

from __future__ import annotations

import re
from datetime import datetime
from operator import itemgetter
from typing import Annotated, Any

import msgspec
import pyarrow as pa

from clickstream_assets.catalogue import (
    ERASED_EXPOSURES,
    EXPERIMENT_EXPOSURES,
    RAW_EXPOSURES,
    RECORD_KEY,
    REJECTED_EXPOSURES,
)
from clickstream_assets.ingest.fields import Rejection
from clickstream_assets.ingest.pseudonyms import PseudonymsOf, persons_of
from clickstream_assets.ingest.retention import check_bytes, empty_taken_in
from clickstream_assets.recommender.experiments import NAME
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.topic import Topics
from clickstream_assets.stores.lake import Lake

_Name = Annotated[str, msgspec.Meta(pattern=f"^{NAME}$")]
_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
_FIELD = re.compile(r"field `(?P<missing>\w+)`|at `\$\.(?P<wrong>\w+)")


class _Exposure(msgspec.Struct):
    exposure_id: _Id
    experiment: _Name
    arm: _Name
    unit: _Id
    products: Annotated[list[str], msgspec.Meta(max_length=1000)]
    time: Annotated[datetime, msgspec.Meta(tz=True)]
    model_version: str | None = None
    moment_version: str | None = None


_decoder = msgspec.json.Decoder(_Exposure)


def exposures_topic(settings: Settings) -> Topics | None:
    """Return the topic of exposures; None where none is set."""
    if settings.kafka_exposures_topic is None:
        return None
    return Topics(settings, [settings.kafka_exposures_topic], "KAFKA_EXPOSURES_TOPIC")


def read_exposure(value: bytes | None) -> dict[str, Any]:
    """Read a record's value as columns of EXPERIMENT_EXPOSURES.

    Raises:
        Rejection: it is no exposure.
    """
    try:
        found = _decoder.decode(value or b"")
    except msgspec.ValidationError as error:
        place = _FIELD.search(str(error))
        if place and place["missing"]:
            raise Rejection(place["missing"], "missing", None) from None
        raise Rejection(place["wrong"] if place else None, "wrong_type", None) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Rejection(None, "not_json", None) from None
    columns = msgspec.structs.asdict(found)
    return columns | {"exposed_at": columns.pop("time")}


def update_exposures(lake: Lake, pseudonyms_of: PseudonymsOf | None = None) -> int:
    """Take in the records of new batches of `raw_exposures`, each batch once: to exposures, or to the rejected ones.

    Args:
        lake: has the records, and gets the rows.
        pseudonyms_of: gives the pseudonyms of units, where there are some; then records lose their bytes, too.

    Returns:
        How many records of these batches are rejected.
    """
    taken, newest = (lake.snapshot(table).batch for table in (EXPERIMENT_EXPOSURES, RAW_EXPOSURES))
    is_put_back = taken > newest
    batches = range(1 if is_put_back else taken + 1, newest + 1)
    check_bytes(lake, RAW_EXPOSURES, batches)
    if is_put_back:
        # The records are of an earlier time: what came of later ones goes.
        for table in (REJECTED_EXPOSURES, EXPERIMENT_EXPOSURES):
            lake.replace_batch(table, table.arrow.empty_table(), 0)
    count = 0
    place = itemgetter(*RECORD_KEY)
    for batch in batches:
        exposures, rejected = [], []
        erased = {place(record) for record in lake.rows_of_batch(ERASED_EXPOSURES, batch).to_pylist()}
        for record in lake.rows_of_batch(RAW_EXPOSURES, batch).to_pylist():
            if place(record) in erased:
                continue
            try:
                exposures.append(record | read_exposure(record["value"]))
            except Rejection as rejection:
                why = {"field": rejection.field, "rule": rejection.rule, "rejected_value": rejection.shown}
                rejected.append(record | why)
        if pseudonyms_of:
            units = persons_of({exposure["unit"] for exposure in exposures}, pseudonyms_of)
            exposures = [exposure | {"unit": units[exposure["unit"]]} for exposure in exposures]
            rejected = [record | dict.fromkeys(("key", "value", "rejected_value")) for record in rejected]
        # First: once `experiment_exposures` holds a batch, both tables do.
        if rejected:
            lake.append_rows(REJECTED_EXPOSURES, _table(rejected, REJECTED_EXPOSURES.arrow), batch)
        lake.append_rows(EXPERIMENT_EXPOSURES, _table(exposures, EXPERIMENT_EXPOSURES.arrow), batch)
        count += len(rejected)
    if pseudonyms_of:
        empty_taken_in(lake, RAW_EXPOSURES)
    return count


def _table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=schema)
