"""Elasticsearch: the live events, in an index per UTC day behind one alias.

One document per event id over all days: of the first record in Kafka's order, in whatever order and batches records
are sent, and sending them again changes nothing. The stream writes, the API reads; both get errors that say which
setting to mend.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential
from urllib3.util import parse_url

from clickstream_assets.analytics.schema import LIVE_EVENTS
from clickstream_assets.settings import Settings

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

# The client is imported where it is used: that takes half a second, and most processes that import this have no need.

RESULT_WINDOW = 10_000
"""How deep a search can be paged: `index.max_result_window`, which the indices leave as it is."""

# Elasticsearch refuses longer document ids, and with them the whole request.
MAX_ID_BYTES = 512
# What is longer is kept and shown, and not searchable; Lucene takes 32,766 bytes, the name of the key included.
_SEARCHABLE_BYTES = 1024
_RECORD = ("topic", "partition", "offset")
_TRACES = ("payload_hash", *_RECORD)
_REQUEST_DOCUMENTS = 2000
# A 400, but no fault of the document: the cluster has as many shards as cluster.max_shards_per_node allows.
_FULL = re.compile(r"this action would add \[\d+\] shards")
_REQUEST_BYTES = 5_000_000


class Problem(StrEnum):
    """What is wrong with Elasticsearch, in words that give nothing away about where it is."""

    UNREACHABLE = "Elasticsearch cannot be reached"
    BUSY = "Elasticsearch is overloaded"
    NOT_ALLOWED = "Elasticsearch does not allow this"
    UNHEALTHY = "Elasticsearch has lost an index"
    IN_THE_WAY = "an index has the name of the alias"
    FAILED = "Elasticsearch reported an error"


class ElasticsearchError(RuntimeError):
    """Elasticsearch cannot do what is asked; the message names the setting and the fix.

    Attributes:
        problem: What is wrong, without host names or values.
    """

    def __init__(self, problem: Problem, detail: str) -> None:
        super().__init__(problem, detail)
        self.problem = problem
        self.detail = detail

    def __str__(self) -> str:
        """Say what is wrong and what to do."""
        return f"{self.problem}: {self.detail}"


class Document(NamedTuple):
    """An event as Elasticsearch is to have it."""

    id: str
    day: date
    record: tuple[str, int, int]
    """Topic, partition and offset; also in the source. Of an id's records the least is the document."""
    source: bytes
    """A JSON object."""


class _Copy(NamedTuple):
    """A document that is there: of which record, and in which index."""

    record: tuple[str, int, int]
    kept_in: str


class Written(StrEnum):
    """What came of a document."""

    CREATED = "created"
    REPLACED = "replaced"
    """The id was there of a later record, whose document this one has taken the place of."""
    THERE = "there"
    """The id was there already, of this record or an earlier one, and has stayed."""
    REFUSED = "refused"


class Outcome(NamedTuple):
    """What came of a document, and why it was refused."""

    written: Written
    error: str | None = None
    reason: str | None = None


class LiveEvents:
    """The live events of one alias.

    Args:
        settings: where the server is, and how the indices are called and laid out.
        timeout: seconds that one request may take.
    """

    def __init__(self, settings: Settings, timeout: float = 30) -> None:
        self._settings = settings
        self._timeout = timeout

    @cached_property
    def client(self) -> Elasticsearch:
        """The client, made at first use; it connects when it is asked something."""
        from elasticsearch import Elasticsearch

        key = self._settings.elasticsearch_api_key
        return Elasticsearch(
            self._settings.elasticsearch_url,
            api_key=key.get_secret_value() if key else None,
            request_timeout=self._timeout,
            # Who waits and how long is decided here, with a pause in between.
            max_retries=0,
            retry_on_timeout=False,
        )

    def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        if "client" in vars(self):
            self.client.close()
            del self.client

    def index(self, day: date) -> str:
        """Name of a day's index."""
        return f"{self._settings.elasticsearch_alias}-{day:%Y.%m.%d}"

    def check(self) -> None:
        """Ask whether the server can be used.

        Raises:
            ElasticsearchError: if not.
        """
        with self._explained():
            # Not `info`: a server of our own stack, without most modules, does not answer it.
            health = self.client.cluster.health()
        if health["status"] == "red":
            raise ElasticsearchError(
                Problem.UNHEALTHY, f"the cluster at {self._server} is red; see its own log for the reason"
            )

    def prepare(self) -> None:
        """Make sure that an index that is made from now on has our mapping and the alias.

        And that all that was written before is found, by a search too: `write` looks for ids.

        Raises:
            ElasticsearchError: the server was not there or too busy for ELASTICSEARCH_PATIENCE_SECONDS, or has an
                index where the alias is to be.
        """
        alias = self._settings.elasticsearch_alias
        for attempt in self._patiently():
            with attempt, self._explained():
                if self.client.indices.resolve_index(name=alias, ignore_unavailable=True)["indices"]:
                    raise ElasticsearchError(
                        Problem.IN_THE_WAY,
                        f"{self._server} has an index called {alias}, which ELASTICSEARCH_ALIAS is to be an alias "
                        "of; copy it to another name and delete it, or set ELASTICSEARCH_ALIAS to another name",
                    )
                self.client.indices.put_index_template(
                    name=alias,
                    index_patterns=[f"{alias}-*"],
                    template={
                        "aliases": {alias: {}},
                        "settings": {
                            "number_of_shards": self._settings.elasticsearch_shards,
                            "number_of_replicas": self._settings.elasticsearch_replicas,
                            "refresh_interval": "1s",
                        },
                        "mappings": MAPPINGS,
                    },
                )
                self.client.indices.refresh(index=alias, ignore_unavailable=True)

    def write(self, documents: Sequence[Document]) -> list[Outcome]:
        """Write documents of different ids, and say of each what came of it, in the same order.

        A server that is away or busy is tried again, with what it has not taken yet. `prepare` comes first, with
        each batch of the stream: it makes what earlier batches wrote visible.

        Raises:
            ElasticsearchError: it stayed so for ELASTICSEARCH_PATIENCE_SECONDS, or does not let us write at all.
                What it has taken until then stays, and is `THERE` the next time.
        """
        outcomes: dict[int, Outcome] = {}
        for attempt in self._patiently():
            with attempt, self._explained():
                self._send(documents, outcomes)
        return [outcomes[number] for number in range(len(documents))]

    def _send(self, documents: Sequence[Document], outcomes: dict[int, Outcome]) -> None:
        """Write the documents that have no outcome yet, and then delete those that they take the place of."""
        waiting = [number for number in range(len(documents)) if number not in outcomes]
        there = self._find([documents[number].id for number in waiting])
        done: dict[int, Outcome] = {}
        to_write = []
        for number in waiting:
            copies = there[documents[number].id]
            if copies and copies[0].record <= documents[number].record:
                done[number] = Outcome(Written.THERE)
            else:
                to_write.append(number)
        try:
            self._write(documents, to_write, there, done, _REQUEST_DOCUMENTS)
        finally:
            # Also where others were not taken: what came of these is known, and a copy may only go when the
            # document that replaces it is there. A crash in between leaves two, which the next attempt finds.
            surplus = {n: _surplus(documents[n], self.index(documents[n].day), there, done[n]) for n in done}
            outcomes.update((n, done[n]) for n in done if not surplus[n])
        self._delete((documents[n].id, copy.kept_in) for n, copies in surplus.items() for copy in copies)
        outcomes.update(done)

    def _find(self, ids: Sequence[str]) -> dict[str, list[_Copy]]:
        """Find what documents there are of ids, on whatever day, those of the first records first."""
        found: dict[str, list[_Copy]] = defaultdict(list)
        for start in range(0, len(ids), _REQUEST_DOCUMENTS):
            answer = self.client.search(
                index=self._settings.elasticsearch_alias,
                query={"ids": {"values": ids[start : start + _REQUEST_DOCUMENTS]}},
                size=RESULT_WINDOW,
                source={"includes": _RECORD},
                track_total_hits=False,
                ignore_unavailable=True,
                allow_partial_search_results=False,
            )
            for hit in answer["hits"]["hits"]:
                topic, partition, offset = (hit["_source"][name] for name in _RECORD)
                found[hit["_id"]].append(_Copy((topic, partition, offset), hit["_index"]))
        for copies in found.values():
            copies.sort()
        return found

    def _write(
        self,
        documents: Sequence[Document],
        numbers: Sequence[int],
        there: Mapping[str, list[_Copy]],
        done: dict[int, Outcome],
        at_once: int,
    ) -> None:
        """Write these documents, in requests of at most so many, and note what came of them."""
        actions = (
            (
                {
                    "index" if there[documents[n].id] else "create": {
                        "_index": self.index(documents[n].day),
                        "_id": documents[n].id,
                    }
                },
                documents[n].source,
            )
            for n in numbers
        )
        busy = None
        suspects = []
        for number, answer in zip(numbers, self._bulk(actions, at_once), strict=True):
            status = answer["status"]
            if _is_busy(answer):
                busy = _reason(answer)
            elif status in (401, 403, 404):
                raise ElasticsearchError(Problem.NOT_ALLOWED, f"{self._server}: {_reason(answer)[1]}")
            elif "exception" in answer and at_once > 1:
                # The whole request was refused, for a document or for its size.
                suspects.append(number)
            elif status == 409:
                # Written by an attempt of this batch whose answer was lost.
                done[number] = Outcome(Written.THERE)
            elif status >= 400:
                done[number] = Outcome(Written.REFUSED, *_reason(answer))
            else:
                done[number] = Outcome(Written.REPLACED if there[documents[number].id] else Written.CREATED)
        if busy:
            raise ElasticsearchError(Problem.BUSY, f"{self._server} answered {': '.join(busy)}")
        if suspects:
            self._write(documents, suspects, there, done, at_once=1)

    def _delete(self, copies: Iterable[tuple[str, str]]) -> None:
        """Delete documents by id and index; one that is gone already is fine."""
        actions = (({"delete": {"_index": index, "_id": event_id}}, None) for event_id, index in copies)
        for answer in self._bulk(actions, _REQUEST_DOCUMENTS):
            if answer["status"] >= 400 and answer["status"] != 404:
                problem = Problem.BUSY if _is_busy(answer) else Problem.NOT_ALLOWED
                raise ElasticsearchError(problem, f"{self._server}: {_reason(answer)[1]}")

    def _bulk(self, actions: Iterable[Any], at_once: int) -> Iterator[dict[str, Any]]:
        """Send actions with their documents; yields the server's answer to each, errors included."""
        from elasticsearch.helpers import streaming_bulk

        results = streaming_bulk(
            self.client,
            actions,
            chunk_size=at_once,
            max_chunk_bytes=_REQUEST_BYTES,
            expand_action_callback=_as_it_is,
            raise_on_error=False,
            raise_on_exception=False,
        )
        for _, result in results:
            (answer,) = result.values()
            yield answer

    def search(self, query: Mapping[str, Any], limit: int, offset: int) -> list[dict[str, Any]]:
        """Find events, the latest first and equals by event id; none where nothing was ever written.

        Args:
            query: in Elasticsearch's query language.
            limit: most events to return.
            offset: events to pass over; with `limit` at most `RESULT_WINDOW`.

        Raises:
            ElasticsearchError: the server cannot be reached, or does not answer in time.
        """
        with self._explained():
            found = self.client.search(
                index=self._settings.elasticsearch_alias,
                query=query,
                size=limit,
                from_=offset,
                sort=[
                    {"event_time": {"order": "desc", "unmapped_type": "date"}},
                    {"event_id": {"order": "asc", "unmapped_type": "keyword"}},
                ],
                track_total_hits=False,
                ignore_unavailable=True,
                allow_partial_search_results=False,
            )
        return [hit["_source"] for hit in found["hits"]["hits"]]

    def drop_days(self, keep: int, today: date) -> list[date]:
        """Drop the indices of days that are more than `keep` days ago, but never that of the newest day.

        Returns:
            The days that were dropped, in order.

        Raises:
            ElasticsearchError: the server cannot be reached.
        """
        with self._explained():
            days = self._days()
            dropped = [day for day in days[:-1] if day < today - timedelta(days=keep)]
            for day in dropped:
                self.client.indices.delete(index=self.index(day), ignore_unavailable=True)
        return dropped

    def _days(self) -> list[date]:
        """The days that have an index, in order."""
        prefix = f"{self._settings.elasticsearch_alias}-"
        names = (index.removeprefix(prefix) for index in self.client.indices.get_alias(index=f"{prefix}*"))
        # What else somebody has put behind the alias has no day, and is not ours to drop.
        return sorted(
            datetime.strptime(name, "%Y.%m.%d").date()
            for name in names
            if re.fullmatch(r"\d{4}\.\d\d\.\d\d", name)
        )

    @property
    def _server(self) -> str:
        url = parse_url(self._settings.elasticsearch_url)
        return f"ELASTICSEARCH_URL={url._replace(auth=None).url}"

    def _patiently(self) -> Retrying:
        return Retrying(
            retry=retry_if_exception(_may_pass),
            stop=stop_after_delay(self._settings.elasticsearch_patience_seconds),
            wait=wait_exponential(multiplier=0.2, max=10),
            reraise=True,
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn the client's errors into `ElasticsearchError`."""
        from elastic_transport import TransportError
        from elasticsearch import ApiError

        try:
            yield
        except TransportError as error:
            raise ElasticsearchError(
                Problem.UNREACHABLE,
                f"no answer from {self._server} ({error.message}); start it (`clickstream stack up` starts a local "
                "one), or set ELASTICSEARCH_URL to where it is",
            ) from error
        except ApiError as error:
            said = f"{self._server} answered {error.status_code}: {error}"
            if error.status_code in (401, 403):
                raise ElasticsearchError(
                    Problem.NOT_ALLOWED, f"{said}; set ELASTICSEARCH_API_KEY to a key that may"
                ) from error
            busy = error.status_code == 429 or error.status_code >= 500
            raise ElasticsearchError(Problem.BUSY if busy else Problem.FAILED, said) from error


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, ElasticsearchError) and error.problem in (Problem.UNREACHABLE, Problem.BUSY)


def _as_it_is(action: Any) -> Any:
    return action


def _surplus(
    document: Document, index: str, there: Mapping[str, list[_Copy]], outcome: Outcome
) -> list[_Copy]:
    """What there is of a document's id beside the one that is to stay."""
    copies = there[document.id]
    if outcome.written is Written.REPLACED:
        return [copy for copy in copies if copy.kept_in != index]
    return copies[1:]


def _is_busy(answer: Mapping[str, Any]) -> bool:
    """Whether the server could not take something now, through no fault of what was sent."""
    status = answer["status"]
    return status == 429 or status >= 500 or (status == 400 and bool(_FULL.search(_reason(answer)[1])))


def _reason(answer: Mapping[str, Any]) -> tuple[str, str]:
    """The kind of an error, and its cause in words."""
    error = answer["error"]
    if isinstance(error, str):
        return "request_refused", error
    # What is outermost repeats the value and names the cause only as "failed to parse".
    cause = error.get("caused_by", error)
    return error["type"], cause["reason"]


def _field_mapping(column: str, arrow: pa.DataType) -> dict[str, Any]:
    if column == "properties":
        # One field whatever keys senders think of; a field each would end at 1,000.
        return {"type": "flattened", "ignore_above": _SEARCHABLE_BYTES}
    if column == "query":
        return {"type": "text", "fields": {"keyword": {"type": "keyword"}}}
    if pa.types.is_timestamp(arrow) or pa.types.is_date(arrow):
        return {"type": "date"}
    if pa.types.is_decimal(arrow):
        # Near enough to search and add up; the document itself has every digit.
        return {"type": "double"}
    if column in _TRACES:
        # No more than shown: it would be a fifth of the fields to index.
        return {"type": "keyword", "index": False, "doc_values": False}
    names = {pa.string(): "keyword", pa.bool_(): "boolean", pa.int64(): "long"}
    return {"type": names[arrow]}


WORDS = "words"
"""Field of a document that words are looked for in: the texts of the event together."""

MAPPINGS: dict[str, Any] = {
    # What has no mapping is kept and not searched: an old index never refuses a newer version's documents.
    "dynamic": False,
    "_source": {"excludes": [WORDS]},
    "properties": {
        WORDS: {"type": "text"},
        **{column.name: _field_mapping(column.name, column.type) for column in LIVE_EVENTS.columns},
    },
}
