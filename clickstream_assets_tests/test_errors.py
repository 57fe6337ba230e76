"""Errors of ours: each says whether trying again may help, in the one policy of runs and streams."""

import importlib
import pkgutil
from collections.abc import Iterator

import pytest

import clickstream_assets
from clickstream_assets.errors import ClickstreamError, is_retryable
from clickstream_assets.stores import elasticsearch
from clickstream_assets.stores.postgres import connection
from clickstream_assets.stores.webhook import DeliveryError

RETRYABLE = {
    "DiskFullError",
    "EngineStorageError",
    "TopicError",
    "LakeConflictError",
    "LakeStorageError",
    "OwnedError",
    "ServerAwayError",
}
NOT_RETRYABLE = {
    "DiskFullError",
    "BackupError",
    "BatchError",
    "CheckpointError",
    "DataLossError",
    "GateError",
    "InputError",
    "LakeDamagedError",
    "LakeError",
    "LocalStackError",
    "MailError",
    "NoReportError",
    "NotEnoughInteractions",
    "PortsTakenError",
    "PublicationError",
    "RatingsError",
    "ServerError",
    "SettingsError",
    "SplitError",
    "StreamError",
    "TimestampError",
    "TopicNotFoundError",
    "UnknownFormatError",
}
BY_KIND = {"ApiError", "DeliveryError", "ElasticsearchError", "PostgresError", "UndeliveredError"}


def subclasses(kind: type[ClickstreamError]) -> Iterator[type[ClickstreamError]]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from subclasses(subclass)


@pytest.fixture(scope="module")
def errors() -> dict[str, type[ClickstreamError]]:
    """Every class of error in the package, by its name."""
    for module in pkgutil.walk_packages(clickstream_assets.__path__, "clickstream_assets."):
        if "migrations" not in module.name:
            importlib.import_module(module.name)
    found = [
        kind for kind in subclasses(ClickstreamError) if kind.__module__.startswith("clickstream_assets.")
    ]
    assert len({kind.__name__ for kind in found}) == len(set(found))
    return {kind.__name__: kind for kind in found}


def test_every_error_is_here(errors: dict[str, type[ClickstreamError]]):
    assert set(errors) == RETRYABLE | NOT_RETRYABLE | BY_KIND


def test_every_class_says_whether_to_retry_and_shows_its_message_alone(
    errors: dict[str, type[ClickstreamError]],
):
    for name in RETRYABLE | NOT_RETRYABLE:
        error = errors[name]("NAME=value: what is wrong; what to do")
        assert is_retryable(error) is (name in RETRYABLE), name
        assert str(error) == "NAME=value: what is wrong; what to do"


@pytest.mark.parametrize(
    ("problems", "kind", "passing"),
    [
        (
            connection.PostgresProblem,
            connection.PostgresError,
            {"UNREACHABLE", "SILENT", "BUSY", "DISK_FULL", "TOO_SLOW"},
        ),
        (
            elasticsearch.ElasticsearchProblem,
            elasticsearch.ElasticsearchError,
            {"UNREACHABLE", "SILENT", "BUSY", "FULL"},
        ),
    ],
)
def test_a_servers_error_is_retryable_by_its_problem(problems, kind, passing):
    for problem in problems:
        error = kind(problem, "NAME=value")
        assert is_retryable(error) is (problem.name in passing)
        assert str(error) == f"{problem}: NAME=value"


def test_a_delivery_is_retryable_where_it_says_so():
    assert is_retryable(DeliveryError("HTTP 503", retryable=True))
    assert not is_retryable(DeliveryError("HTTP 410"))


def test_errors_of_the_system_are_retryable_and_faults_of_ours_are_not():
    assert is_retryable(ConnectionResetError())
    assert not is_retryable(KeyError("a fault"))
