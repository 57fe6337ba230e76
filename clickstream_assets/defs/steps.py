"""The steps of a run: a body gets what its resources open, and its errors are explained.

An asset, a check and an op are each a step. Their bodies are plain functions of settings, lake and topics,
and of PostgreSQL as its resource.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any, NamedTuple

import dagster as dg

from clickstream_assets.defs.resources import KafkaResource, LakeResource, SettingsResource
from clickstream_assets.errors import ClickstreamError, DiskFullError, is_retryable
from clickstream_assets.files import NO_SPACE, room
from clickstream_assets.settings import Settings, load_settings
from clickstream_assets.stores.kafka.topic import Topics
from clickstream_assets.stores.lake import Lake

_OPENED_BY = {Settings: SettingsResource, Lake: LakeResource, Topics: KafkaResource}


class Retry(NamedTuple):
    """The number of times that a step is tried again after an error that may pass, and the seconds before each."""

    times: int = 3
    seconds: float = 3


SOON = Retry()


@contextmanager
def explained_errors(retry: Retry = SOON) -> Iterator[None]:
    """Try a step again after an error that may pass, and end the run with the message alone where a person is needed.

    Any other exception is a fault of ours and fails the run at once, with its traceback.
    """
    try:
        yield
    except Exception as caught:
        error: Exception = caught
        if isinstance(caught, OSError) and NO_SPACE.search(str(caught)):
            folder = caught.filename or load_settings().clickstream_home
            error = DiskFullError(f"{caught}: {room(folder)}. Free some; what failed is tried again")
        if is_retryable(error):
            raise dg.RetryRequested(max_retries=retry.times, seconds_to_wait=retry.seconds) from error
        if isinstance(error, ClickstreamError):
            raise dg.Failure(description=str(error), allow_retries=False) from error
        raise


def step(
    body: Callable[..., Any],
    finish: Callable[[Any, Mapping[str, Any]], Any] | None = None,
    retry: Retry = SOON,
) -> Callable[..., Any]:
    """Make the function that Dagster calls.

    Args:
        body: does the work. Its parameters are named as Dagster names them (`context`, `config`, and resources); one
            of type `Settings`, `Lake` or `Topics` gets what the resource of that name opens.
        finish: makes what Dagster gets from what the body returned and was given (default: the former); a list is
            several results. Its errors are explained too.
        retry: how often, and when, the step is tried again.
    """
    signature = inspect.signature(body, eval_str=True)
    resources = {
        name: _OPENED_BY[parameter.annotation]
        for name, parameter in signature.parameters.items()
        if parameter.annotation in _OPENED_BY
    }

    @wraps(body)
    def call(*args: Any, **kwargs: Any) -> Any:
        with explained_errors(retry):
            given = signature.bind(*args, **kwargs).arguments
            opened = {name: value.get() if name in resources else value for name, value in given.items()}
            result = body(**opened)
            if finish:
                result = finish(result, opened)
        # Dagster wants what a step yields, and what it yields was made where its errors are explained.
        return (each for each in result) if isinstance(result, list) else result

    parameters = [
        p.replace(annotation=resources.get(name, p.annotation)) for name, p in signature.parameters.items()
    ]
    # What Dagster injects is what it reads here. What a body returns is no type of Dagster's, unless it is nothing.
    returned = None if signature.return_annotation is None else inspect.Signature.empty
    vars(call)["__signature__"] = signature.replace(parameters=parameters, return_annotation=returned)
    return call
