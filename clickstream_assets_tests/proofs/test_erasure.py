"""A person with events of every kind is erased while others' events flow, and no byte of theirs is left.

Compared with a house that has never heard of them. Then Kafka, which has their records still, is read again.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from clickstream_assets.catalogue import TABLES
from clickstream_assets.commands.app import app
from clickstream_assets.commands.stream import rebuild_streams
from clickstream_assets.definitions import defs
from clickstream_assets.engine import DuckDBEngine, SparkEngine
from clickstream_assets.ingest.classification import misclassified_records
from clickstream_assets.local.stack import Stack
from clickstream_assets.settings import Settings, load_settings
from clickstream_assets.stores.kafka.producer import ensure_topics
from clickstream_assets.stores.lake import Lake
from clickstream_assets_tests import topics
from clickstream_assets_tests.background import in_background
from clickstream_assets_tests.databases import query, with_settings
from clickstream_assets_tests.defs.pipeline import send
from clickstream_assets_tests.erased import in_database, in_documents, in_files
from clickstream_assets_tests.proofs.test_backup import home
from clickstream_assets_tests.proofs.test_put_back import PASSES, House, phase

PERSON, PHONE, SESSION = "zz-ann-person", "zz-ann-phone", "zz-ann-visit"
IDS = (PERSON, PHONE, SESSION)
SAME = (
    *(
        "sessions",
        "shopper_events",
        "user_segments",
        "customer_segments",
        "carts",
        "funnel",
        "cohort_retention",
    ),
    *("campaign_touches", "campaign_attribution", "product_performance", "interaction_days", "consent_days"),
    *("daily_summary", "hourly_summary", "category_conversion", "identity_ties"),
)
"""Tables that are those of a house that never had the person: of days, and without places in Kafka."""
OF_RECORDS = {"topic", "partition", "offset", "payload_hash", "kafka_time", "kafka_timestamp", "created_at"}
EXPERIMENT = """
[[experiment]]
name = "x"
start = 2024-05-01T00:00:00Z
end = 2024-06-01T00:00:00Z
arms = [{name = "a", share = 0.5}, {name = "b", share = 0.5, serves = "lists"}]
"""


def hers() -> list[bytes]:
    """Events of every type of one person, with a repetition, a conflict, and records that no rule takes."""
    who = {"user_id": PERSON, "anonymous_id": PHONE, "session_id": SESSION}
    kinds = (
        *(
            "page_view",
            "view",
            "click",
            "impression",
            "search",
            "add_to_wishlist",
            "add_to_cart",
            "remove_from_cart",
        ),
        *("add_to_cart", "begin_checkout", "purchase", "refund", "identify"),
    )
    events: list[dict[str, Any]] = []
    for number, kind in enumerate(kinds):
        event = {
            "event_id": f"h{number}",
            "event_type": kind,
            "timestamp": f"2024-05-01T15:{number:02}:00Z",
            "product_id": "p1",
            "price": "7.00",
            "consent": True,
            "campaign": "spring",
            **(who if number else {"anonymous_id": PHONE}),
        }
        if kind in ("purchase", "refund"):
            event |= {"order_id": "zo1"}
        if kind == "search":
            event |= {"query": "shoes"}
        events.append(event)
    events.append({**events[1], "event_id": "h-next-day", "timestamp": "2024-05-02T09:00:00Z"})
    events.append(events[2])
    events.append({**events[3], "price": "8.00"})
    records = [json.dumps(event).encode() for event in events]
    return [
        *records,
        json.dumps({**events[1], "event_id": "h-bad", "event_type": "teleport"}).encode(),
        f'{{"event_type": "view", "user_id": "{PERSON}", "timest'.encode(),
    ]


def shown(house: House) -> None:
    """An answer of an experiment was hers."""
    record = {"exposure_id": "zx", "experiment": "x", "arm": "a", "unit": PERSON, "products": ["p1"]}
    value = json.dumps(record | {"time": "2024-05-01T15:00:00Z"}).encode()
    topics.send(house.settings, {0: [value]}, PERSON.encode(), topic=load_settings().kafka_exposures_topic)


def run(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def carried_out(house: House, job: str) -> None:
    assert defs().resolve_job_def(job).execute_in_process(instance=house.instance).success


def dagsters_database(house: House) -> Settings:
    """The settings of the database that the house's Dagster has."""
    named = json.loads((house.home / "dagster.yaml").read_text())["storage"]["custom"]["config"][
        "postgres_db"
    ]
    return with_settings(house.settings, postgres_db=named["db_name"])


def where(house: House) -> dict[str, list[str]]:
    """Where the house has one of her ids: the lake, checkpoints, Dagster's folders, both databases, live events."""
    settings = load_settings()
    folders = [Path(settings.lake), Path(settings.checkpoints), house.home]
    found = {
        "files": in_files(IDS, [folder for folder in folders if folder.exists()]),
        "PostgreSQL": in_database(IDS, settings),
        "Dagster": in_database(IDS, dagsters_database(house)),
        "documents": in_documents(IDS, settings),
    }
    return {name: places for name, places in found.items() if places}


def business(house: House) -> dict[str, Any]:
    """What the tables of days say, without what says when or from which record a row was made."""
    found = {}
    for name in SAME:
        table = TABLES[name]
        rows = [{n: v for n, v in row.items() if n not in PASSES | OF_RECORDS} for row in house.lake(table)]
        found[name] = sorted(map(repr, rows))
    return found


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_of_who_is_erased_while_events_flow_no_byte_is_left(
    stack: Stack, servers: Settings, spark_engine: SparkEngine, tmp_path: Path
):
    assert spark_engine.session
    with home(stack, servers, tmp_path / "without") as without:
        for _ in range(3):
            without.come_in()
            assert without.settle() == []
        expected = business(without)

    with home(stack, servers, tmp_path / "with") as house, pytest.MonkeyPatch.context() as patch:
        (tmp_path / "experiments.toml").write_text(EXPERIMENT)
        patch.setenv("EXPERIMENTS", str(tmp_path / "experiments.toml"))
        patch.setenv("KAFKA_EXPOSURES_TOPIC", f"{house.settings.kafka_topic}-shown")
        ensure_topics(load_settings())
        house.come_in()
        send(house.settings, hers())
        shown(house)
        assert house.settle() == []
        carried_out(house, "experiments")
        held = run("export", PERSON)
        print(
            "held before:",
            {name: len(rows) for name, rows in held["lake"].items()},
            len(held["elasticsearch"]),
        )
        for table in ("raw_events", "events", "duplicate_events", "conflicting_events", "rejected_events"):
            assert held["lake"][table], table
        assert held["lake"]["experiment_exposures"]
        assert {"sessions", "carts", "customer_segments"} <= held["lake"].keys()
        assert {*where(house)} == {"files", "PostgreSQL", "documents"}

        with in_background(lambda _: house.work(2)):
            run("erase", PERSON)
        # As each night does.
        for _ in range(3):
            carried_out(house, "erase")
            assert house.settle() == []
            carried_out(house, "experiments")
            carried_out(house, "upkeep")
            receipt = run("erasures", "1")
            if receipt["done_at"]:
                break
        print("receipt:", json.dumps(receipt))
        assert receipt["rows_left"] == 0
        assert receipt["records_erased"] == len(hers()) + 1
        # The request itself forgets whom it was about when the API's memory has.
        query(house.settings, "UPDATE erasures SET asked_at = asked_at - interval '2 days' RETURNING 1")
        carried_out(house, "upkeep")
        assert where(house) == {}
        assert business(house) == expected
        lake = Lake(house.settings.lake, DuckDBEngine(house.settings))
        assert misclassified_records(lake, 1_000, first_batch=1) == []

        # The lake is lost, and the streams begin anew; Kafka has her records still.
        shutil.rmtree(house.settings.lake)
        house.settle()
        rebuild_streams(load_settings())
        assert house.settle() == []
        assert where(house) == {}
        assert business(house) == expected
        assert len(house.lake(TABLES["raw_events"])) == sum(len(phase(n)) for n in range(3)) + len(hers())
