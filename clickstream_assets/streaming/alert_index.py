"""The alerts in Elasticsearch, where Kibana finds them: a copy of PostgreSQL's `flash_sale_alerts`.

An alert changes while it is open and is gone once withdrawn, so the index is compared with the table, and only the
differences are written or deleted. No progress is kept: whatever a crash, a server that was away, a rebuild or a lost
index has left, the next update makes equal again.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import msgspec

from clickstream_assets.catalogue import FLASH_SALE_ALERTS
from clickstream_assets.settings import Settings
from clickstream_assets.stores.elasticsearch import (
    Action,
    ElasticsearchError,
    ElasticsearchProblem,
    ElasticsearchServer,
    bulk_action,
    field_mapping,
    is_busy,
    reason_of,
)
from clickstream_assets.stores.postgres.connection import connect, explained
from clickstream_assets.streaming.alerts import json_value
from clickstream_assets.streaming.lake_copies import read_rows

ALERT_MAPPINGS: dict[str, Any] = {
    # Fields without a mapping are kept and not searched, as with live events.
    "dynamic": False,
    # Marks an index as ours: documents that are not in the table are deleted from it.
    "_meta": {"copy_of": FLASH_SALE_ALERTS.name},
    "properties": {
        column.name: field_mapping(column.name, column.type) for column in FLASH_SALE_ALERTS.columns
    },
}

# Any number will do, as long as nobody else takes it: "alertidx" in ASCII.
_LOCK = 0x616C657274696478
# No longer, for a server that hangs.
_TIMEOUT_SECONDS = 10
_PAGE = 2000
_log = logging.getLogger(__name__)

Documents = dict[str, dict[str, Any]]
"""Documents by id, without fields that are null."""


class AlertIndex(ElasticsearchServer):
    """The index ELASTICSEARCH_ALERTS_INDEX: a document per alert, under its `alert_id`."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, timeout=_TIMEOUT_SECONDS)
        self._name = settings.elasticsearch_alerts_index

    def update(self) -> int:
        """Make the index equal to the table.

        Returns:
            How many documents were written or deleted.

        Raises:
            ElasticsearchError: the server cannot be reached or does not take a document; the others are written.
            PostgresError: the database cannot be reached.
        """
        with explained(self._settings), connect(self._settings) as connection:
            # Held until all is written: a process that reads the table later also writes later.
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            connection.execute("SET TIME ZONE 'UTC'")
            alerts = {
                row["alert_id"]: _document(row)
                for row in read_rows(connection, FLASH_SALE_ALERTS).to_pylist()
            }
            with self._explained():
                return self._make_equal(alerts)

    def _make_equal(self, alerts: Documents) -> int:
        is_there = self._is_there()
        indexed = self._documents() if is_there else {}
        changed = [alert_id for alert_id, alert in alerts.items() if indexed.get(alert_id) != alert]
        gone = [alert_id for alert_id in indexed if alert_id not in alerts]
        if changed and not is_there:
            # Not the index itself: if somebody deletes it now, the first document makes it again, and just as well.
            self._put_template(self._name, self._name, 1, ALERT_MAPPINGS)
        self._send(alerts, changed, gone)
        return len(changed) + len(gone)

    def _is_there(self) -> bool:
        """Return whether there is an index of ours; one of somebody else's is left as it is."""
        found = self.client.options(ignore_status=404).indices.get_mapping(index=self._name)
        if found.meta.status == 404:
            return False
        if any(index["mappings"].get("_meta") != ALERT_MAPPINGS["_meta"] for index in found.values()):
            raise ElasticsearchError(
                ElasticsearchProblem.IN_THE_WAY,
                f"{self._server} has an index called {self._name} that is not ours; set ELASTICSEARCH_ALERTS_INDEX to "
                "another name, or copy it to another name and delete it",
            )
        return True

    def _documents(self) -> Documents:
        from elasticsearch.helpers import ScanError, scan

        # A search finds what was written before.
        self.client.indices.refresh(index=self._name)
        try:
            return {hit["_id"]: hit["_source"] for hit in scan(self.client, index=self._name, size=_PAGE)}
        except ScanError as error:
            raise ElasticsearchError(ElasticsearchProblem.BUSY, f"{self._server}: {error}") from error

    def _send(self, alerts: Documents, changed: list[str], gone: list[str]) -> None:
        def actions() -> Iterator[Action]:
            for alert_id in changed:
                yield bulk_action("index", alert_id, self._name), msgspec.json.encode(alerts[alert_id])
            for alert_id in gone:
                yield bulk_action("delete", alert_id, self._name), None

        # One that was to be deleted and is gone already has a status of 404, and no error.
        failed = [answer for answer in self._bulk(actions()) if "error" in answer]
        if failed:
            problem = ElasticsearchProblem.BUSY if any(map(is_busy, failed)) else ElasticsearchProblem.FAILED
            said = ": ".join(reason_of(failed[0]))
            raise ElasticsearchError(
                problem,
                f"{self._server} did not take {len(failed)} of {len(changed) + len(gone)} alerts: {said}",
            )


def _document(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row as JSON has it."""
    return {name: json_value(value) for name, value in row.items() if value is not None}


def update_alert_index(settings: Settings) -> str | None:
    """Make the index equal to the table, or log and return the reason why the alerts wait.

    Nothing else depends on it, and the next run or process makes up for it.

    Raises:
        PostgresError: the database cannot be reached.
    """
    try:
        with closing(AlertIndex(settings)) as index:
            index.update()
    except ElasticsearchError as error:
        _log.warning("the alerts in Elasticsearch wait: %s", error)
        return str(error)
    return None
