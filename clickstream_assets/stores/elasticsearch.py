"""Elasticsearch: the live events, in an index per day behind one alias; and what the alerts' index needs too.

An index of ours is called by the alias and a day; what others have put behind the alias is neither read nor written.
One document per event id over all days: of the first record in Kafka's order, in whatever order and batches records
are sent, and sending them again changes nothing. The stream writes, the API reads; both get errors that say which
setting to mend. The alerts' index is in `streaming/alert_index.py`.
"""

from __future__ import annotations

import re
import ssl
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeAlias

import msgspec
import pyarrow as pa
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential
from urllib3.util import parse_url

from clickstream_assets.catalogue import LIVE_EVENTS, RECORD_KEY
from clickstream_assets.errors import ClickstreamError, is_retryable
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.partition import TopicPartition, from_topics, to_topics

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

# The client is imported where it is used: that takes half a second, and most processes that import this have no need.

RESULT_WINDOW = 10_000
"""Depth to which a search can be paged: `index.max_result_window`, which the indices leave as it is."""

# Elasticsearch refuses longer document ids, and with them the whole request.
MAX_ID_BYTES = 512
# What is longer is kept and shown, and not searchable; Lucene takes 32,766 bytes, the name of the key included.
_SEARCHABLE_BYTES = 1024
_TRACES = ("payload_hash", *RECORD_KEY)
_REQUEST_DOCUMENTS = 2000
# A 400, but no fault of the document: the cluster has as many shards as cluster.max_shards_per_node allows.
_FULL = re.compile(r"this action would add \[\d+\] shards")
_REQUEST_BYTES = 5_000_000
# OpenSSL's word for a server that hangs up, as one does that stops.
_HUNG_UP = "EOF"


# A day of some million events is written anew in minutes.
_MERGE_SECONDS = 3600


class ElasticsearchProblem(StrEnum):
    """A kind of failure of Elasticsearch, in words that do not reveal where it is."""

    UNREACHABLE = "Elasticsearch cannot be reached"
    UNTRUSTED = "Elasticsearch cannot be trusted"
    SILENT = "Elasticsearch does not answer"
    BUSY = "Elasticsearch is overloaded"
    FULL = "Elasticsearch has as many shards as it may have"
    NOT_ALLOWED = "Elasticsearch does not allow this"
    UNHEALTHY = "Elasticsearch has lost an index"
    IN_THE_WAY = "another index has that name"
    FAILED = "Elasticsearch reported an error"


class ElasticsearchError(ClickstreamError):
    """Elasticsearch cannot do what is asked; the message names the setting and the fix.

    Attributes:
        problem: What is wrong, without host names or values.
    """

    def __init__(self, problem: ElasticsearchProblem, detail: str) -> None:
        super().__init__(
            f"{problem}: {detail}",
            retryable=problem
            in (
                ElasticsearchProblem.UNREACHABLE,
                ElasticsearchProblem.SILENT,
                ElasticsearchProblem.BUSY,
                ElasticsearchProblem.FULL,
            ),
        )
        self.problem = problem


class Document(NamedTuple):
    """An event as Elasticsearch is to have it."""

    id: str
    day: date
    record: tuple[str, int, int]
    """Topic, partition and offset; also in the source. Of an id's records the least is the document."""
    source: bytes
    """A JSON object."""


Action: TypeAlias = tuple[bytes, bytes | None]
"""A line of a bulk request that says what to do, and the document's, if it takes one."""
_OF_REQUEST = "of_request"
"""In an answer that was to the whole request, not to one of its actions."""


_AFTER_ALL = (chr(sys.maxunicode), 0, 0)
"""Comes after each record."""


class _Copy(NamedTuple):
    """A document that is there: of which record, in which index, and which of its versions it is."""

    record: tuple[str, int, int]
    kept_in: str
    sequence: int
    term: int

    @property
    def is_this(self) -> dict[str, int]:
        """Condition of an action that is for this version alone."""
        return {"if_seq_no": self.sequence, "if_primary_term": self.term}


class Written(StrEnum):
    """Outcome of writing a document, in a word."""

    CREATED = "created"
    REPLACED = "replaced"
    """The id was there of a later record, whose document this one has replaced."""
    THERE = "there"
    """The id was there already, of this record or an earlier one, and has stayed."""
    REFUSED = "refused"
    TOO_OLD = "too_old"
    """The day is past LIVE_EVENTS_RETENTION_DAYS, and gets no index for it."""


class Outcome(NamedTuple):
    """Outcome of writing a document, and why it was refused."""

    written: Written
    error: str | None = None
    reason: str | None = None


class ElasticsearchServer:
    """The server that the settings name.

    Args:
        settings: where it is, and how indices are called and laid out.
        timeout: seconds that one request may take.
    """

    def __init__(self, settings: Settings, timeout: float = 30) -> None:
        self._settings = settings
        self._timeout = timeout

    @cached_property
    def client(self) -> Elasticsearch:
        """The client, made at first use; it connects when it is asked something.

        Raises:
            ElasticsearchError: ELASTICSEARCH_CA_FILE cannot be used.
        """
        from elasticsearch import Elasticsearch

        key = self._settings.elasticsearch_api_key
        return Elasticsearch(
            self._settings.elasticsearch_url,
            **self._authorities(),
            api_key=key.get_secret_value() if key else None,
            request_timeout=self._timeout,
            # Retries are handled here, with a pause in between.
            max_retries=0,
            retry_on_timeout=False,
        )

    def _authorities(self) -> dict[str, Any]:
        """Return the client's option for certificates that others than the public authorities have signed."""
        file = self._settings.elasticsearch_ca_file
        if not file or not self._settings.elasticsearch_url.startswith("https:"):
            return {}
        try:
            # The client would only read it when it connects, and say that the server cannot be reached.
            ssl.create_default_context(cafile=file)
        except OSError as error:
            raise ElasticsearchError(
                ElasticsearchProblem.UNTRUSTED,
                f"ELASTICSEARCH_CA_FILE={file} cannot be used: {error}; name a PEM file of the authorities that the "
                "server's certificate is checked by",
            ) from error
        return {"ca_certs": str(file)}

    def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        if "client" in vars(self):
            self.client.close()
            del self.client

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
                ElasticsearchProblem.UNHEALTHY,
                f"the cluster at {self._server} is red; see its own log for the reason",
            )

    def _bulk(
        self, actions: Iterable[Action], at_once: int = _REQUEST_DOCUMENTS
    ) -> Iterator[Mapping[str, Any]]:
        """Send actions with their documents; yields the server's answer to each, errors included.

        Not by the client's helper: it costs more than all else that is done with a document here.
        """
        from elasticsearch import ApiError

        for request in _requests(actions, at_once):
            try:
                # The client takes lines that are encoded already, though its types do not say so.
                lines: Any = [line for action in request for line in action if line is not None]
                answer = self.client.bulk(
                    operations=lines,
                    # Of most documents there is nothing else to know.
                    filter_path=("items.*.status", "items.*.error"),
                )
            except ApiError as error:
                # The whole request was refused, for a document or for its size.
                yield from (
                    {"status": error.status_code, "error": str(error), _OF_REQUEST: True} for _ in request
                )
            else:
                yield from (next(iter(item.values())) for item in answer["items"])

    def _put_template(
        self, name: str, pattern: str, shards: int, mappings: Mapping[str, Any], **more: Any
    ) -> None:
        """Say how an index whose name has the pattern is laid out when it is made; `more` is of the template."""
        self.client.indices.put_index_template(
            name=name,
            index_patterns=[pattern],
            template={
                "settings": {
                    "number_of_shards": shards,
                    "number_of_replicas": self._settings.elasticsearch_replicas,
                    "refresh_interval": "1s",
                },
                "mappings": mappings,
                **more,
            },
        )

    @property
    def _server(self) -> str:
        url = parse_url(self._settings.elasticsearch_url)
        return f"ELASTICSEARCH_URL={url._replace(auth=None).url}"

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn the client's errors into `ElasticsearchError`."""
        from elastic_transport import ConnectionTimeout, TlsError, TransportError
        from elasticsearch import ApiError

        try:
            yield
        except ConnectionTimeout as error:
            raise ElasticsearchError(
                ElasticsearchProblem.SILENT,
                f"no answer from {self._server} for {self._timeout:g} s; see whether its process is stopped or waits "
                "for its disk",
            ) from error
        except TransportError as error:
            if isinstance(error, TlsError) and _HUNG_UP not in error.message:
                raise ElasticsearchError(
                    ElasticsearchProblem.UNTRUSTED,
                    f"no secure connection to {self._server} ({error.message}); set ELASTICSEARCH_CA_FILE to a PEM "
                    "file of the authority that signed the server's certificate, and ELASTICSEARCH_URL to a name "
                    "that it is for",
                ) from error
            raise ElasticsearchError(
                ElasticsearchProblem.UNREACHABLE,
                f"no answer from {self._server} ({error.message}); start it (`clickstream stack up` starts a local "
                "one), or set ELASTICSEARCH_URL to where it is",
            ) from error
        except ApiError as error:
            said = f"{self._server} answered {error.status_code}: {error}"
            if error.status_code in (401, 403):
                raise ElasticsearchError(
                    ElasticsearchProblem.NOT_ALLOWED, f"{said}; set ELASTICSEARCH_API_KEY to a key that may"
                ) from error
            busy = error.status_code == 429 or error.status_code >= 500
            raise ElasticsearchError(
                ElasticsearchProblem.BUSY if busy else ElasticsearchProblem.FAILED, said
            ) from error


class LiveEvents(ElasticsearchServer):
    """The live events of one alias."""

    def index(self, day: date) -> str:
        """Return the name of a day's index."""
        # Asked for each document: formatting a date takes thrice as long.
        return f"{self._settings.elasticsearch_alias}-{day.isoformat().replace('-', '.')}"

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
                        ElasticsearchProblem.IN_THE_WAY,
                        f"{self._server} has an index called {alias}, which ELASTICSEARCH_ALIAS is to be an alias "
                        "of; copy it to another name and delete it, or set ELASTICSEARCH_ALIAS to another name",
                    )
                self._put_template(
                    alias, f"{alias}-*", self._settings.elasticsearch_shards, MAPPINGS, aliases={alias: {}}
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

    def settle(self, ids: Sequence[str]) -> None:
        """Leave of each id the document of its first record alone.

        For ids that several wrote at the same time: they can have written documents of different days.

        Raises:
            ElasticsearchError: as `write`.
        """
        if not ids:
            return
        for attempt in self._patiently():
            with attempt, self._explained():
                self.client.indices.refresh(index=self._settings.elasticsearch_alias)
                there = self._find(ids)
                self._delete_copies({document_id: copies[1:] for document_id, copies in there.items()})

    def _send(self, documents: Sequence[Document], outcomes: dict[int, Outcome]) -> None:
        """Write the documents that have no outcome yet, and then delete those that they replace."""
        waiting = [number for number in range(len(documents)) if number not in outcomes]
        there = self._find([documents[number].id for number in waiting])
        done: dict[int, Outcome] = {}
        try:
            while waiting:
                for number in waiting:
                    copies = there.get(documents[number].id)
                    if copies and copies[0].record <= documents[number].record:
                        done[number] = Outcome(Written.THERE)
                contested = self._write(
                    documents, [n for n in waiting if n not in done], there, done, _REQUEST_DOCUMENTS
                )
                self._look_again([documents[n] for n in contested], there)
                waiting = contested
        finally:
            # Also where others were not taken: what came of these is known, and a copy may only go when the
            # document that replaces it is there. A crash in between leaves two, which the next attempt finds.
            surplus = {
                n: copies
                for n in done
                if (copies := _surplus(there.get(documents[n].id, []), self.index(documents[n].day), done[n]))
            }
            outcomes.update((n, done[n]) for n in done if n not in surplus)
        self._delete_copies({documents[n].id: copies for n, copies in surplus.items()})
        outcomes.update(done)

    def _find(self, ids: Sequence[str]) -> dict[str, list[_Copy]]:
        """Find what documents there are of ids, on whatever day, those of the first records first."""
        found: dict[str, list[_Copy]] = defaultdict(list)
        own = self._own_indices()
        for start in range(0, len(ids), _REQUEST_DOCUMENTS):
            wanted = {"ids": {"values": ids[start : start + _REQUEST_DOCUMENTS]}}
            answer = self.client.search(
                index=self._settings.elasticsearch_alias,
                query={"bool": {"filter": [own, wanted]}},
                size=RESULT_WINDOW,
                source={"includes": RECORD_KEY},
                seq_no_primary_term=True,
                track_total_hits=False,
                ignore_unavailable=True,
                allow_partial_search_results=False,
            )
            for hit in answer["hits"]["hits"]:
                found[hit["_id"]].append(_copy(hit))
        for copies in found.values():
            copies.sort()
        return dict(found)

    def _look_again(self, documents: Sequence[Document], there: dict[str, list[_Copy]]) -> None:
        """Bring `there` up to what is now in the index of each document's day, whether a search finds it or not."""
        if not documents:
            return
        wanted = [
            {"_index": self.index(document.day), "_id": document.id, "_source": RECORD_KEY}
            for document in documents
        ]
        for asked, hit in zip(wanted, self.client.mget(docs=wanted)["docs"], strict=True):
            others = [copy for copy in there.get(hit["_id"], []) if copy.kept_in != asked["_index"]]
            there[hit["_id"]] = sorted([*others, *([_copy(hit)] if hit.get("found") else [])])

    def _write(
        self,
        documents: Sequence[Document],
        numbers: Sequence[int],
        there: Mapping[str, list[_Copy]],
        done: dict[int, Outcome],
        at_once: int,
    ) -> list[int]:
        """Write these documents, in requests of at most so many, and note what came of them.

        Returns:
            Those that another document has come before meanwhile: of another worker, or of an attempt of this batch
            whose answer was lost.
        """
        actions = [
            _to_write(documents[n], self.index(documents[n].day), there.get(documents[n].id, []))
            for n in numbers
        ]
        busy = None
        contested = []
        suspects = []
        for number, answer in zip(numbers, self._bulk(actions, at_once), strict=True):
            status = answer["status"]
            if is_busy(answer):
                busy = reason_of(answer)
            elif status in (401, 403, 404):
                raise ElasticsearchError(
                    ElasticsearchProblem.NOT_ALLOWED, f"{self._server}: {reason_of(answer)[1]}"
                )
            elif _OF_REQUEST in answer and at_once > 1:
                # Some document of it, or all of them together.
                suspects.append(number)
            elif status == 409:
                contested.append(number)
            elif status >= 400:
                done[number] = Outcome(Written.REFUSED, *reason_of(answer))
            else:
                is_new = not there.get(documents[number].id)
                done[number] = Outcome(Written.CREATED if is_new else Written.REPLACED)
        if busy:
            self._raise_busy(busy)
        if suspects:
            contested += self._write(documents, suspects, there, done, at_once=1)
        return contested

    def _raise_busy(self, reason: tuple[str, str]) -> NoReturn:
        said = f"{self._server} answered {': '.join(reason)}"
        if not _FULL.search(said):
            raise ElasticsearchError(ElasticsearchProblem.BUSY, said)
        raise ElasticsearchError(
            ElasticsearchProblem.FULL,
            f"{said}. Each day of live events is an index: set LIVE_EVENTS_RETENTION_DAYS to fewer days than the "
            f"{len(self._days())} that there are, or raise cluster.max_shards_per_node",
        )

    def _delete_copies(self, surplus: Mapping[str, Iterable[_Copy]]) -> None:
        """Delete copies by id."""
        self._delete(
            (bulk_action("delete", document_id, copy.kept_in, **copy.is_this), None)
            for document_id, copies in surplus.items()
            for copy in copies
        )

    def _delete(self, actions: Iterable[Action]) -> int:
        """Delete documents; one that is gone already is fine, and one that is another by now stays.

        Returns:
            How many were deleted.
        """
        deleted = 0
        for answer in self._bulk(actions):
            if answer["status"] >= 400 and answer["status"] not in (404, 409):
                problem = ElasticsearchProblem.BUSY if is_busy(answer) else ElasticsearchProblem.NOT_ALLOWED
                raise ElasticsearchError(problem, f"{self._server}: {reason_of(answer)[1]}")
            deleted += answer["status"] < 400
        return deleted

    def progress(self, topics: Iterable[str]) -> dict[TopicPartition, int]:
        """Return, per partition of topics, the offset up to which this server has its events; empty before the first.

        Kept with the documents, so that a server that was put back to an earlier time says so itself.

        Raises:
            ElasticsearchError: the server cannot be reached.
        """
        kept: dict[str, dict[str, int]] = {}
        with self._explained():
            for topic in topics:
                found = self.client.options(ignore_status=404).get(index=self._progress_index, id=topic)
                kept[topic] = found["_source"]["offsets"] if found.get("found") else {}
        return from_topics(kept)

    def keep_progress(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Keep up to which offsets all events were written.

        Raises:
            ElasticsearchError: as `write`.
        """
        for attempt in self._patiently():
            with attempt, self._explained():
                name = self._progress_index
                if not self.client.indices.exists(index=name):
                    self._put_template(name, name, 1, {"dynamic": False})
                for topic, by_partition in to_topics(offsets).items():
                    self.client.index(index=name, id=topic, document={"offsets": by_partition})

    @property
    def _progress_index(self) -> str:
        return f"{self._settings.elasticsearch_alias}_progress"

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
                query={"bool": {"filter": [self._own_indices(), query]}},
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

    def erase(self, users: Collection[str], visitors: Collection[str], sessions: Collection[str]) -> int:
        """Delete the events of persons by their ids, as their sender names them; of visitors those without a user.

        A session's id counts where an event has no other. Their bytes go as the server merges its segments.

        Returns:
            How many there were.

        Raises:
            ElasticsearchError: as `write`.
        """
        return self._erase(self._theirs(users, visitors, sessions), lambda _: True)

    def erase_at(self, places: Collection[tuple[str, int, int]], visitors: Collection[str]) -> int:
        """Delete what several persons did on a device, as far as it is at some places.

        Args:
            places: topic, partition and offset of records.
            visitors: anonymous ids of devices. Of events with a user id `erase` takes care.

        Returns:
            How many events there were.

        Raises:
            ElasticsearchError: as `write`.
        """
        if not places or not visitors:
            return 0
        return self._erase(self._theirs((), visitors, ()), lambda hit: _record(hit["_source"]) in places)

    def _erase(self, query: Mapping[str, Any], is_theirs: Callable[[Mapping[str, Any]], bool]) -> int:
        """Delete those of the documents that a query finds; return how many there were."""
        deleted = 0
        for attempt in self._patiently():
            with attempt, self._explained():
                if not self._days():
                    return 0
                # What was written a moment ago is found, too.
                self.client.indices.refresh(index=self._settings.elasticsearch_alias)
                deleted += self._delete(
                    [
                        (bulk_action("delete", hit["_id"], hit["_index"]), None)
                        for hit in self._hits(query, {"includes": RECORD_KEY})
                        if is_theirs(hit)
                    ]
                )
        return deleted

    def expunge(self) -> None:
        """Have the server write its files anew without the documents that were deleted, and wait for it.

        Raises:
            ElasticsearchError: the server cannot be reached.
        """
        with self._explained():
            for day in self._days():
                index = self.index(day)
                # By default it leaves them in a segment of which fewer than a tenth are deleted.
                allowed = {"index.merge.policy.expunge_deletes_allowed": 0}
                self.client.indices.put_settings(index=index, settings=allowed)
                self.client.options(request_timeout=_MERGE_SECONDS).indices.forcemerge(
                    index=index, only_expunge_deletes=True
                )

    def events_of(
        self, users: Collection[str], visitors: Collection[str], sessions: Collection[str]
    ) -> list[dict[str, Any]]:
        """Return all events of persons, by the same ids as `erase` deletes them.

        Raises:
            ElasticsearchError: the server cannot be reached.
        """
        with self._explained():
            if not self._days():
                return []
            return [hit["_source"] for hit in self._hits(self._theirs(users, visitors, sessions))]

    def _hits(
        self, query: Mapping[str, Any], source: bool | Mapping[str, Any] = True
    ) -> list[dict[str, Any]]:
        """Return all documents that a query finds, or of what they say the fields that `source` names."""
        from elasticsearch.helpers import scan

        alias = self._settings.elasticsearch_alias
        return list(scan(self.client, index=alias, query={"query": query, "_source": source}))

    def _theirs(
        self, users: Collection[str], visitors: Collection[str], sessions: Collection[str]
    ) -> dict[str, Any]:
        def without(*names: str) -> list[dict[str, Any]]:
            return [{"bool": {"must_not": {"exists": {"field": name}}}} for name in names]

        ids: list[list[dict[str, Any]]] = [
            [{"terms": {"user_id": sorted(users)}}],
            [{"terms": {"anonymous_id": sorted(visitors)}}, *without("user_id")],
            [{"terms": {"session_id": sorted(sessions)}}, *without("user_id", "anonymous_id")],
        ]
        theirs = [{"bool": {"filter": its}} for its in ids]
        return {"bool": {"filter": [self._own_indices()], "should": theirs, "minimum_should_match": 1}}

    def _own_indices(self) -> dict[str, Any]:
        """Make the filter that leaves out others' indices behind the alias, such as a copy of one of ours."""
        # By exact names: a pattern for `_index` knows `*` alone, which fits the copy as well.
        return {"terms": {"_index": [self.index(day) for day in self._days()]}}

    def first_kept(self, keep: int, today: date, new: Iterable[date] = ()) -> date:
        """Return the day that lies `keep` days before the newest of those that there are and of new ones.

        The future is not among them: a wrong clock must not age all other days. History that is replayed is aged by
        its own newest day.

        Raises:
            ElasticsearchError: as `write`.
        """
        there: list[date] = []
        for attempt in self._patiently():
            with attempt, self._explained():
                there = self._days()
        return _first_kept([*there, *new], keep, today)

    def drop_days(self, keep: int, today: date) -> list[date]:
        """Drop the indices of days that are more than `keep` days before the newest.

        Returns:
            The days that were dropped, in order.

        Raises:
            ElasticsearchError: the server cannot be reached.
        """
        with self._explained():
            days = self._days()
            first = _first_kept(days, keep, today)
            dropped = [day for day in days if day < first]
            for day in dropped:
                self.client.indices.delete(index=self.index(day), ignore_unavailable=True)
        return dropped

    def _days(self) -> list[date]:
        """Return the days that have an index, in order."""
        prefix = f"{self._settings.elasticsearch_alias}-"
        names = (index.removeprefix(prefix) for index in self.client.indices.get_alias(index=f"{prefix}*"))
        # What else somebody has put behind the alias has no day, and is not ours to drop.
        return sorted(
            datetime.strptime(name, "%Y.%m.%d").date()
            for name in names
            if re.fullmatch(r"\d{4}\.\d\d\.\d\d", name)
        )

    def _patiently(self) -> Retrying:
        return Retrying(
            retry=retry_if_exception(is_retryable),
            stop=stop_after_delay(self._settings.elasticsearch_patience_seconds),
            wait=wait_exponential(multiplier=0.2, max=10),
            reraise=True,
        )


def _first_kept(days: Iterable[date], keep: int, today: date) -> date:
    newest = max((day for day in days if day <= today), default=today)
    return newest - timedelta(days=keep)


def _record(source: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    return source.get("topic"), source.get("partition"), source.get("offset")


def _copy(hit: Mapping[str, Any]) -> _Copy:
    record = _record(hit["_source"])
    if [type(part) for part in record] != [str, int, int]:
        # Somebody else's document with an id of ours: ours replaces it.
        record = _AFTER_ALL
    return _Copy(record, hit["_index"], hit["_seq_no"], hit["_primary_term"])


def _to_write(document: Document, index: str, copies: Iterable[_Copy]) -> Action:
    """Have a document written where there is none of its id, or instead of just the one that is there."""
    own = next((copy for copy in copies if copy.kept_in == index), None)
    line = (
        bulk_action("index", document.id, index, **own.is_this)
        if own
        else bulk_action("create", document.id, index)
    )
    return line, document.source


def bulk_action(kind: str, document_id: str, index: str, **conditions: int) -> bytes:
    """Make a line of a bulk request; `kind` is `create`, `index` or `delete`, conditions such as `if_seq_no`."""
    return msgspec.json.encode({kind: {"_index": index, "_id": document_id, **conditions}})


def _requests(actions: Iterable[Action], at_once: int) -> Iterator[list[Action]]:
    """Put actions together to requests, of no more than so many and, but for one alone, `_REQUEST_BYTES`."""
    request: list[Action] = []
    size = 0
    for action in actions:
        # Each line with its end.
        length = sum(len(line) + 1 for line in action if line is not None)
        if request and (len(request) == at_once or size + length > _REQUEST_BYTES):
            yield request
            request, size = [], 0
        request.append(action)
        size += length
    if request:
        yield request


def _surplus(copies: list[_Copy], index: str, outcome: Outcome) -> list[_Copy]:
    """Return the copies of a document's id but the one that is to stay."""
    if outcome.written is Written.REPLACED:
        return [copy for copy in copies if copy.kept_in != index]
    return copies[1:]


def is_busy(answer: Mapping[str, Any]) -> bool:
    """Return whether the server could not take something now, through no fault of what was sent."""
    status = answer["status"]
    return status == 429 or status >= 500 or (status == 400 and bool(_FULL.search(reason_of(answer)[1])))


def reason_of(answer: Mapping[str, Any]) -> tuple[str, str]:
    """Return the kind of an error, and its cause in words."""
    error = answer["error"]
    if isinstance(error, str):
        return "request_refused", error
    # What is outermost repeats the value and names the cause only as "failed to parse".
    cause = error.get("caused_by", error)
    return error["type"], cause["reason"]


def field_mapping(column: str, arrow: pa.DataType) -> dict[str, Any]:
    """Return how a column of one of our tables is indexed."""
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
    if pa.types.is_list(arrow):
        fields = {field.name: field_mapping(field.name, field.type) for field in arrow.value_type}
        return {"properties": fields}
    names = {
        pa.string(): "keyword",
        pa.bool_(): "boolean",
        pa.int32(): "integer",
        pa.int64(): "long",
        pa.float64(): "double",
    }
    return {"type": names[arrow]}


WORDS = "words"
"""Field of a document that words are looked for in: the texts of the event together."""

MAPPINGS: dict[str, Any] = {
    # What has no mapping is kept and not searched: an old index never refuses a newer version's documents.
    "dynamic": False,
    "_source": {"excludes": [WORDS]},
    "properties": {
        WORDS: {"type": "text"},
        **{column.name: field_mapping(column.name, column.type) for column in LIVE_EVENTS.columns},
    },
}
