"""When models are trained, and on what: the verdict, the sensor's transitions, its check, and real runs."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from dagster import DagsterRun, DagsterRunStatus
from typer.testing import CliRunner

from clickstream_assets.catalogue import (
    CONSENT_DAYS,
    EXPERIMENT_RECOMMENDATIONS,
    INTERACTION_DAYS,
    INTERACTIONS,
    MET_PRODUCTS,
    NEXT_PRODUCT_MODELS,
    NEXT_PRODUCT_PARTS,
    POPULAR_PRODUCTS,
    PRODUCT_RECOMMENDATIONS,
    PUBLISHED_MODELS,
    RELATED_PRODUCTS,
    SERVED_MODELS,
)
from clickstream_assets.commands.app import app
from clickstream_assets.defs.models.checks import training_keeps_up
from clickstream_assets.defs.models.due import Interactions, Rhythm, Training, due
from clickstream_assets.defs.models.sensors import REASON_TAG, untrained_interactions
from clickstream_assets.defs.models.training import TrainingData
from clickstream_assets.defs.put_back import STAMP
from clickstream_assets.defs.resources import SettingsResource
from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.settings import Settings, SettingsError, load_settings
from clickstream_assets.stores.lake import Lake
from clickstream_assets_tests.analytics.records import at
from clickstream_assets_tests.dagster_private import StepMaterializationData, freeze_time
from clickstream_assets_tests.databases import query
from clickstream_assets_tests.defs.history import (
    check_asset,
    end_run,
    past_run,
    start_run,
    tick,
    trained_on,
)
from clickstream_assets_tests.defs.pipeline import Pipeline
from clickstream_assets_tests.streaming.streams import click

CHECKS = (
    "consent_days_keys_are_unique",
    "consent_days_values_are_allowed",
    "keys_are_unique",
    "values_are_allowed",
)
SUCCESS, FAILURE = DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE
HOUR = 3600.0
NOW = 1_000_000.0
RHYTHM = Rhythm(after_share=0.1, max_age=timedelta(hours=22))
TRAINED = Training(version=7, rows=1000, rows_of_all_days=5000, at=NOW - HOUR, is_whole=True)

VERDICTS: dict[str, tuple[Interactions, dict[str, Any], bool, str]] = {
    "nothing was ever trained": (Interactions(1, 10), {"trained": None}, True, "nothing is trained yet"),
    "nothing is new": (Interactions(7, 5000), {}, False, "nothing is new since the last training"),
    "it was killed before it had published all": (
        Interactions(7, 5000),
        {"trained": TRAINED._replace(is_whole=False)},
        True,
        "the last training did not come to its end",
    ),
    "nothing is new, and files were put together before the training": (
        Interactions(6, 5000),
        {"rhythm": RHYTHM._replace(after_share=0.0)},
        False,
        "nothing is new since the last training",
    ),
    "nothing is new, and the model is old": (
        Interactions(7, 5000),
        {"now": NOW + 100 * HOUR},
        False,
        "nothing is new since the last training",
    ),
    "a tenth is not more than a tenth": (
        Interactions(8, 5100),
        {},
        False,
        "100 interactions are new since the last training, on 1,000; more than 100, or 21.0 h more, are reason",
    ),
    "more than a tenth": (
        Interactions(8, 5101),
        {},
        True,
        "101 interactions are new since the last training, on 1,000",
    ),
    "a tenth less, as after an erasure": (Interactions(8, 4899), {}, True, "101 interactions are new"),
    "little is new, and the model is old": (
        Interactions(8, 5000),
        {"now": NOW + 21 * HOUR},
        True,
        "0 interactions are new since the last training, on 1,000, and 22.0 h have passed",
    ),
    "little is new, and every refresh is to be followed by a training": (
        Interactions(8, 5000),
        {"rhythm": RHYTHM._replace(after_share=0.0)},
        True,
        "0 interactions are new",
    ),
    "the first interactions after a training on none": (
        Interactions(8, 1),
        {"trained": TRAINED._replace(rows=0, rows_of_all_days=0)},
        True,
        "1 interactions are new",
    ),
    "none after a training on none": (
        Interactions(8, 0),
        {"trained": TRAINED._replace(rows=0, rows_of_all_days=0)},
        False,
        "0 interactions are new",
    ),
    "the lake was put back": (
        Interactions(7, 5000),
        {"put_back_at": NOW},
        True,
        "the lake is of an earlier time than the last training",
    ),
    "persons were erased": (
        Interactions(7, 4999),
        {"trained": TRAINED._replace(version=6), "erased_at": NOW},
        True,
        "persons were erased since the last training",
    ),
    "persons were erased, and no refresh has made anything without them yet": (
        Interactions(7, 5000),
        {"erased_at": NOW},
        False,
        "nothing is new since the last training",
    ),
    "the lake was put back, and trained on since": (
        Interactions(7, 5000),
        {"put_back_at": NOW - 2 * HOUR},
        False,
        "nothing is new since the last training",
    ),
}


@pytest.mark.parametrize(("there", "given", "is_due", "reason"), VERDICTS.values(), ids=VERDICTS)
def test_a_training_is_due_when_enough_is_new_or_something_and_the_last_is_old(
    there: Interactions, given: dict[str, Any], is_due: bool, reason: str
):
    usual: dict[str, Any] = {"trained": TRAINED, "put_back_at": 0, "now": NOW, "rhythm": RHYTHM}
    found = due(there, **(usual | given))
    assert found.is_due is is_due
    assert found.reason.startswith(reason)


def test_models_that_would_be_overdue_before_they_are_trained_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRAIN_MAX_AGE_HOURS", "30")
    with pytest.raises(
        SettingsError, match=r"TRAIN_MAX_AGE_HOURS=30 is not less than FRESHNESS_MODELS_HOURS=26"
    ):
        load_settings()


class House:
    """A Dagster instance in which refreshes and trainings report what they did."""

    def __init__(self, instance: dg.DagsterInstance, definitions: dg.Definitions) -> None:
        self.instance = instance
        self._definitions = definitions

    def sum_up(
        self, version: int, rows: int, seconds_ago: float = 0, end: DagsterRunStatus = SUCCESS
    ) -> None:
        """A refresh sums days up, with all that is trained on, and ends."""
        run = self.begin_to_sum_up(version, rows, seconds_ago)
        self.go_on(run, seconds_ago)
        end_run(self.instance, run, end, seconds_ago)

    def begin_to_sum_up(self, version: int, rows: int, seconds_ago: float = 0) -> DagsterRun:
        """A refresh reports `interaction_days`, and goes on."""
        run = start_run(self.instance, "refresh")
        with freeze_time(time.time() - seconds_ago):
            self._report(run, "interaction_days", lake_version=version, **{"dagster/row_count": rows})
        return run

    def go_on(self, run: DagsterRun, seconds_ago: float = 0) -> None:
        """The refresh checks the sums, and makes the products' categories."""
        check_asset(self.instance, "interaction_days", CHECKS)
        with freeze_time(time.time() - seconds_ago):
            self._report(run, "product_performance")

    def publish(self, version: int, rows: int, seconds_ago: float = 0) -> None:
        """A training of so long ago is published."""
        run = self.begin_to_publish(version, rows, seconds_ago)
        with freeze_time(time.time() - seconds_ago):
            self._report(run, "published_next_product")
            self._report(run, "published_predictions")
        end_run(self.instance, run, SUCCESS, seconds_ago)

    def begin_to_publish(self, version: int, rows: int, seconds_ago: float = 0) -> DagsterRun:
        """A training publishes its recommendations, and goes on."""
        run, metadata = start_run(self.instance, "train"), trained_on(version, rows, seconds_ago)
        with freeze_time(metadata["trained_at"]):
            self._report(run, "product_recommendations", **metadata)
        return run

    def _report(self, run: DagsterRun, asset: str, **metadata: Any) -> None:
        event = dg.DagsterEvent(
            event_type_value=dg.DagsterEventType.ASSET_MATERIALIZATION.value,
            job_name=run.job_name,
            event_specific_data=StepMaterializationData(dg.AssetMaterialization(asset, metadata=metadata)),
        )
        self.instance.report_dagster_event(event, run.run_id)

    def look(self) -> str:
        """Return why the sensor asks for a run, or why it asks for none."""
        result = tick(untrained_interactions, self.instance, self._definitions)
        if not result.run_requests:
            assert result.skip_message
            return result.skip_message
        (request,) = result.run_requests
        return f"run: {request.tags[REASON_TAG]}"

    def check(self) -> dg.AssetCheckResult:
        """What `training_keeps_up` finds."""
        context = dg.build_asset_check_context(instance=self.instance)
        result = training_keeps_up(context, settings=SettingsResource())
        assert isinstance(result, dg.AssetCheckResult)
        return result


@pytest.fixture
def house(instance: dg.DagsterInstance, definitions: dg.Definitions) -> House:
    return House(instance, definitions)


def test_before_the_first_refresh_nothing_is_trained(house: House):
    assert house.look() == "there is nothing to train on before the first refresh"


def test_what_the_first_refresh_has_summed_up_is_trained_on_at_once(house: House):
    run = house.begin_to_sum_up(1, 100)
    for check in CHECKS:
        waits = f"check {check} of interaction_days has not been carried out yet; nothing is trained yet"
        assert house.look() == waits
        check_asset(house.instance, "interaction_days", [check])
    assert house.look() == f"run {run.run_id} is still to make product_performance; nothing is trained yet"
    house.go_on(run)
    assert house.look() == "run: nothing is trained yet"


def test_what_a_check_refuses_is_not_trained_on(house: House):
    run = house.begin_to_sum_up(1, 100)
    check_asset(house.instance, "interaction_days", CHECKS)
    check_asset(house.instance, "interaction_days", CHECKS[-1:], passed=False)
    end_run(house.instance, run, FAILURE)
    assert house.look() == f"check {CHECKS[-1]} of interaction_days failed; nothing is trained yet"
    house.sum_up(2, 100)
    assert house.look() == "run: nothing is trained yet"


def test_a_report_that_fails_keeps_nothing_from_being_trained_on(house: House):
    house.sum_up(1, 100, end=FAILURE)
    assert house.look() == "run: nothing is trained yet"


def test_a_training_is_followed_by_another_only_when_enough_is_new(house: House):
    house.sum_up(1, 100)
    house.publish(1, 100)
    assert house.look() == "nothing is new since the last training"
    house.sum_up(2, 110)
    assert house.look().startswith(
        "10 interactions are new since the last training, on 100; more than 10, or 22.0 h"
    )
    house.sum_up(3, 111)
    assert house.look() == "run: 11 interactions are new since the last training, on 100"


def test_an_old_training_is_followed_by_another_when_anything_is_new(house: House):
    house.sum_up(1, 100, seconds_ago=23 * HOUR)
    house.publish(1, 100, seconds_ago=22.5 * HOUR)
    assert house.look() == "nothing is new since the last training"
    house.sum_up(2, 101)
    assert (
        house.look() == "run: 1 interactions are new since the last training, on 100, and 22.5 h have passed"
    )


def test_one_training_at_a_time_and_a_failing_one_is_not_started_in_every_tick(house: House):
    house.sum_up(1, 100)
    run = start_run(house.instance, "train")
    assert house.look() == f"run {run.run_id} is under way; nothing is trained yet"
    end_run(house.instance, run, FAILURE)
    assert house.look().startswith("the last run failed; trying again in ")
    past_run(house.instance, "train", FAILURE, seconds_ago=21)
    assert house.look() == "run: nothing is trained yet"


def test_a_training_that_was_killed_before_it_had_published_all_is_followed_by_another(house: House):
    house.sum_up(1, 100)
    house.publish(1, 100, seconds_ago=HOUR)
    run = house.begin_to_publish(1, 100)
    assert house.look() == f"run {run.run_id} is under way; the last training did not come to its end"
    end_run(house.instance, run, FAILURE)
    assert house.look().startswith("the last run failed; trying again in ")
    past_run(house.instance, "train", FAILURE, seconds_ago=21)
    assert house.look() == "run: the last training did not come to its end"
    house.publish(1, 100)
    assert house.look() == "nothing is new since the last training"


def test_the_check_passes_unless_a_training_has_been_due_for_an_hour(house: House):
    assert house.check().passed
    house.sum_up(1, 100, seconds_ago=HOUR / 2)
    assert house.check().passed
    house.publish(1, 100, seconds_ago=1000)
    house.sum_up(2, 200)
    # Due, and only just.
    assert house.look().startswith("run: 100 ")
    assert house.check().passed


def test_the_check_warns_of_a_training_that_does_not_come_about(house: House):
    house.sum_up(1, 100, seconds_ago=3 * HOUR)
    found = house.check()
    assert not found.passed
    assert found.severity is dg.AssetCheckSeverity.WARN
    assert found.metadata["actual"].value == "nothing is trained yet"
    house.publish(1, 100, seconds_ago=2.9 * HOUR)
    assert house.check().passed
    house.sum_up(2, 111, seconds_ago=2 * HOUR)
    assert house.check().metadata["actual"].value == "11 interactions are new since the last training, on 100"
    assert not house.check().passed
    start_run(house.instance, "train")
    assert house.check().passed


def test_what_a_training_reads_stays_the_same_while_days_are_replaced(
    duckdb_engine: DuckDBEngine, tmp_path: Path
):
    lake, settings = Lake(str(tmp_path), duckdb_engine), Settings(_env_file=None, training_days=2)

    def replace(day: date, *users: str) -> None:
        moment = datetime.combine(day, datetime.min.time(), UTC)
        rows = [
            {
                **{"event_date": day, "user_id": user, "product_id": "p", "views": 1, "add_to_carts": 0},
                **{"purchases": 0, "first_time": moment, "last_time": moment},
            }
            for user in users
        ]
        table = pa.Table.from_pylist(rows, schema=INTERACTION_DAYS.arrow)
        lake.replace(INTERACTION_DAYS, duckdb_engine.from_arrow(table), days=(day, day))

    def users(data: TrainingData) -> list[str]:
        return sorted(duckdb_engine.to_arrow(data.interaction_days(lake))["user_id"].to_pylist())

    nobody = TrainingData.newest(lake, settings.training_days)
    assert (nobody.first_day, nobody.rows, users(nobody)) == (None, 0, [])
    first, second, third = (date(2024, 5, day) for day in (1, 2, 3))
    for day, user in ((first, "ann"), (second, "bob"), (third, "eve")):
        replace(day, user)
    # A day without interactions is none of the last two.
    replace(date(2024, 5, 4))
    begun = TrainingData.newest(lake, settings.training_days)
    assert (begun.first_day, begun.last_day, begun.rows, begun.rows_of_all_days) == (second, third, 2, 3)
    reported = json.loads(json.dumps(begun.metadata))

    no = {"event_date": first, "user_id": "bob", "agreed": None, "refused": datetime(2024, 5, 1, tzinfo=UTC)}
    stated = pa.Table.from_pylist([no], schema=CONSENT_DAYS.arrow)
    lake.replace(CONSENT_DAYS, duckdb_engine.from_arrow(stated), days=(first, first))
    replace(third, "eve", "new")
    assert TrainingData.of(reported, lake, settings) == begun
    assert users(begun) == ["bob", "eve"]
    # A no of before the days that are trained on counts, too.
    assert users(TrainingData.newest(lake, settings.training_days)) == ["eve", "new"]


SHOP = [
    click(
        at(f"2024-05-0{day} 1{hour}:00"),
        0,
        event_id=f"{day}{hour}{user}",
        user_id=user,
        product_id=f"p{day + hour + n}",
    )
    for day in (1, 2, 3)
    for hour in (0, 4)
    for n, user in enumerate(("ann", "bob", "eve"))
]


@pytest.fixture
def pipeline(pipeline_env: Settings, instance: dg.DagsterInstance, definitions: dg.Definitions) -> Pipeline:
    return Pipeline(pipeline_env, instance, definitions)


def lists_of(pipeline: Pipeline) -> list[Any]:
    """What a version publishes, but for what stays as it was where a list says the same."""
    kept = {"confidence_score", "model_version"}
    return [
        [{name: value for name, value in row.items() if name not in kept} for row in pipeline.served(table)]
        for table in (PRODUCT_RECOMMENDATIONS, POPULAR_PRODUCTS, RELATED_PRODUCTS)
    ]


@pytest.mark.long
def test_a_refresh_sums_its_days_up_and_the_sensor_has_them_trained_on(
    pipeline: Pipeline, definitions: dg.Definitions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    def asked() -> str | None:
        result = tick(untrained_interactions, pipeline.instance, definitions)
        return result.run_requests[0].tags[REASON_TAG] if result.run_requests else result.skip_message

    pipeline.ingest(*SHOP)
    pipeline.catch_up()
    assert len(pipeline.lake(INTERACTION_DAYS)) == len(SHOP)
    assert pipeline.served(PRODUCT_RECOMMENDATIONS) == []
    assert asked() == "nothing is trained yet"
    assert pipeline.train().success
    first = pipeline.lake(INTERACTIONS)
    assert {row["user_id"] for row in pipeline.served(PRODUCT_RECOMMENDATIONS)} == {"ann", "bob", "eve"}
    (model,) = pipeline.served(PUBLISHED_MODELS)
    assert (model["trained_on"], model["interactions"]) == ("events batch 1", len(SHOP))
    assert (model["first_day"], model["last_day"]) == (date(2024, 5, 1), date(2024, 5, 3))
    (next_product,) = pipeline.served(NEXT_PRODUCT_MODELS)
    # Each of the three came on three days, twice a day.
    assert (next_product["trained_on"], next_product["sessions"]) == ("events batch 1", 18)
    assert [row["model_version"] for row in pipeline.served(NEXT_PRODUCT_PARTS)] == [
        next_product["model_version"]
    ]
    assert {(row["answers"], row["model_version"]) for row in pipeline.served(SERVED_MODELS)} == {
        ("recommendations", model["model_version"]),
        ("next_product", next_product["model_version"]),
    }
    assert asked() == "nothing is new since the last training"
    firsts = {"recommendations": model, "next_product": next_product}
    related = pipeline.served(RELATED_PRODUCTS)
    # Views alone: nothing was bought.
    assert {row["relation"] for row in related} == {"item_to_item"}
    assert {row["product_id"] for row in related} == {e["product_id"] for e in SHOP}
    ranks = sorted(row["trending_rank"] for row in pipeline.served(POPULAR_PRODUCTS))
    assert ranks == list(range(1, len(ranks) + 1))

    # A view more of a pair that met: a refresh replaces its day, and nothing is trained.
    again = click(at("2024-05-03 15:00"), 0, event_id="again", user_id="ann", product_id="p7")
    pipeline.ingest(again)
    pipeline.catch_up()
    assert str(asked()).startswith("0 interactions are new since the last training, on 18; more than 2, or ")
    assert pipeline.lake(INTERACTIONS) == first
    # A no, on a day of its own, and by a search: all of hers is left out, and her interactions stay in the days.
    no = click(
        at("2024-05-20 10:00"),
        0,
        event_id="no",
        user_id="eve",
        event_type="search",
        product_id=None,
        consent=False,
    )
    pipeline.ingest(no, *(e | {"event_id": f"{e['event_id']}x", "product_id": "new"} for e in SHOP[:3]))
    pipeline.catch_up()
    assert [(str(row["event_date"]), row["user_id"]) for row in pipeline.lake(CONSENT_DAYS)] == [
        ("2024-05-20", "eve")
    ]
    assert asked() == "3 interactions are new since the last training, on 18"
    first_lists = lists_of(pipeline)
    pipeline.train()
    assert {row["user_id"] for row in pipeline.lake(INTERACTIONS)} == {"ann", "bob"}
    assert {row["user_id"] for row in pipeline.served(PRODUCT_RECOMMENDATIONS)} == {"ann", "bob"}
    assert len(pipeline.lake(INTERACTION_DAYS)) == len(SHOP) + 3

    # The first versions are put back, whole; Dagster sees no other database in it, and nothing to train.
    versions = {row["answers"]: row["model_version"] for row in pipeline.served(SERVED_MODELS)}
    met = pipeline.served(MET_PRODUCTS)
    assert lists_of(pipeline) != first_lists
    for answers, version in ((name, row["model_version"]) for name, row in firsts.items()):
        said = CliRunner().invoke(app, ["models", "publish", version])
        assert said.output == f"{version} gives {answers} from now on, instead of {versions[answers]}.\n"
        said = CliRunner().invoke(app, ["models", "publish", version])
        assert said.output == f"{version} gives {answers} already; nothing has changed.\n"
    assert lists_of(pipeline) == first_lists
    assert pipeline.served(MET_PRODUCTS) == met
    assert all(row["put_back_at"] for row in pipeline.served(SERVED_MODELS))
    unknown = CliRunner().invoke(app, ["models", "publish", "nowhere"])
    assert unknown.exit_code == 1
    assert unknown.stderr == (
        "No version 'nowhere' of a model was published. There are, of recommendations: "
        f"{versions['recommendations']}, {model['model_version']}; next_product: "
        f"{versions['next_product']}, {next_product['model_version']}\n"
    )
    shown = CliRunner().invoke(app, ["models", "list"]).output
    listed = CliRunner().invoke(app, ["models", "list", "--format", "json"]).output.splitlines()
    assert {row["model_version"] for row in map(json.loads, listed)} >= {
        *versions.values(),
        model["model_version"],
    }
    for row in firsts.values():
        assert re.search(rf"^{row['model_version']} .* served, put back 20", shown, re.MULTILINE)
    assert str(asked()).startswith("nothing is new since the last training")
    for asset in ("product_recommendations", "published_next_product"):
        stamp = pipeline.reported(asset, STAMP)
        assert query(pipeline.settings, f"SELECT stamp FROM publications WHERE asset = '{asset}'") == [
            (stamp,)
        ]
    # What was compared with another version before is not published in its place.
    published = pipeline.materialize("product_recommendations")
    (failed,) = [event for event in published.all_events if event.is_step_failure]
    assert "was published again after" in failed.step_failure_data.error_display_string

    # Of two days up to the newest with an interaction, though other events came later; with lists for an experiment.
    monkeypatch.setenv("TRAINING_DAYS", "2")
    (tmp_path / "experiments.toml").write_text(
        "[[experiment]]\nname = 'x'\nstart = 2024-01-01T00:00:00Z\n"
        "arms = [{name = 'a', share = 0.5}, {name = 'b', share = 0.5, serves = 'als'}]\n"
    )
    monkeypatch.setenv("EXPERIMENTS", str(tmp_path / "experiments.toml"))
    monkeypatch.setenv("KAFKA_EXPOSURES_TOPIC", "shown")
    pipeline.train()
    lists = pipeline.served(EXPERIMENT_RECOMMENDATIONS)
    assert {(row["lists_of"], row["user_id"]) for row in lists} == {("als", "ann"), ("als", "bob")}
    assert pipeline.reported("product_recommendations", "lists_of_experiments") == {"als": len(lists)}
    days = {row["first_time"].date() for row in pipeline.lake(INTERACTIONS)}
    assert days == {date(2024, 5, 2), date(2024, 5, 3)}
    products = {
        row["product_id"] for row in pipeline.lake(INTERACTION_DAYS) if row["event_date"] > date(2024, 5, 1)
    }
    of_refuser = {row["product_id"] for row in pipeline.lake(INTERACTION_DAYS) if row["user_id"] == "eve"}
    assert {row["product_id"] for row in pipeline.lake(POPULAR_PRODUCTS)} >= products - of_refuser
    # The lists are of a training that has looked; of the next product none was surely better than what was put back.
    served = {row["answers"]: row for row in pipeline.served(SERVED_MODELS)}
    assert served["next_product"]["model_version"] == next_product["model_version"]
    assert served["next_product"]["put_back_at"]
    assert served["recommendations"]["model_version"] == pipeline.reported("als_model", "model_version")
    assert served["recommendations"]["put_back_at"] is None
    # What its lists were made from is gone, and so it is no version that can be served again.
    for file in (Path(pipeline.settings.lake) / "interactions").glob("*.parquet"):
        file.unlink()
    gone = CliRunner().invoke(app, ["models", "publish", model["model_version"]])
    assert (gone.exit_code, "no longer has the files of interactions" in gone.stderr) == (1, True)
    assert {row["answers"]: row for row in pipeline.served(SERVED_MODELS)} == served
