"""The version of a model that gives each kind of answer, and the fate of one that a person has put back.

A training compares what it has learnt with what is being served, so a version that was put back is what the next one
has to beat: of the recommendations its algorithm and parameters, learnt anew from the newest data, stay until another
is surely better on the same split (`recommender/evaluation.py`); of the next product it stays itself until a newer
model's hit rate is surely higher than its own was.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pyarrow as pa

from clickstream_assets.catalogue import SERVED_MODELS
from clickstream_assets.recommender.evaluation import GateError
from clickstream_assets.stores.postgres.publishing import Publication, Scope


def served_row(publication: Publication, answers: str) -> dict[str, Any] | None:
    """Return the SERVED_MODELS row of a kind of answer; None if no version gives it."""
    rows = publication.read(SERVED_MODELS, scope=Scope("answers", answers)).to_pylist()
    return rows[0] if rows else None


def serve(
    publication: Publication, answers: str, model_version: str | None, put_back_at: datetime | None = None
) -> None:
    """Let a version give a kind of answer from now on; None for none."""
    row = {"answers": answers, "model_version": model_version, "put_back_at": put_back_at}
    rows = pa.Table.from_pylist([row] if model_version else [], schema=SERVED_MODELS.arrow)
    publication.publish(SERVED_MODELS, rows, Scope("answers", answers))


def refuse_if_put_back(publication: Publication, judged_at: float | None, model_version: str) -> None:
    """Refuse to publish recommendations that were compared with what was served before a person put another back.

    Args:
        publication: the transaction that would publish them; others wait for it from here on.
        judged_at: when they were compared, in seconds since 1970; None for never.
        model_version: the version that would be published.

    Raises:
        GateError: naming the version that was put back.
    """
    publication.hold(SERVED_MODELS)
    row = served_row(publication, "recommendations")
    if row is None or row["put_back_at"] is None or row["model_version"] == model_version:
        return
    if judged_at is None or row["put_back_at"].timestamp() > judged_at:
        raise GateError(
            f"{row['model_version']} was published again after {model_version} had been compared with what was served "
            "before: not to be published. Run the job train, which compares with it"
        )
