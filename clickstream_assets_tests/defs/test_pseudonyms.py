"""One shop with ids and with pseudonyms: the same tables, and no id anywhere but in the table of both."""

from __future__ import annotations

import re
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import pytest

from clickstream_assets.api.app import create_app
from clickstream_assets.catalogue import (
    EVENTS,
    IDENTITY_TIES,
    SERVED_TABLES,
    SESSIONS,
    TABLES,
    Table,
)
from clickstream_assets.local.stack import Stack
from clickstream_assets.settings import Settings
from clickstream_assets.simulator.habits import Habits
from clickstream_assets.simulator.run import SimulationOptions, run_simulation
from clickstream_assets.simulator.stream import Faults
from clickstream_assets.stores.postgres.metadata import METADATA
from clickstream_assets_tests.databases import pipeline_environment, query
from clickstream_assets_tests.defs.pipeline import Pipeline, Rows
from clickstream_assets_tests.defs.test_erasure import (
    EVENTS_OF_ANN,
    EVENTS_OF_BOB,
    IDS,
    MADE,
    run,
    sent,
)
from clickstream_assets_tests.erased import texts_in_files
from clickstream_assets_tests.ingest.test_pseudonyms import without_what_is_not_kept

# A cart's and a session's own id is a hash of whose it is.
OF_PERSON = {"session_id", "cart_id"}
# Moments, topics, files and versions of a run, and fingerprints, which have persons in them.
OF_RUN = {
    *("created_at", "updated_at", "generated_at", "trained_at", "published_at", "model_version", "seconds"),
    *("topic", "first_topic", "kafka_time", "files", "fingerprint", "as_of", "version"),
}
NOT_COMPARED = {
    # Bytes, and what else is not kept.
    *("raw_events", "rejected_samples", "ingest_rules"),
    # Random factors are drawn in the order of persons' ids, and sessions are split by a hash of them.
    *("als_user_factors", "als_item_factors", "model_evaluation", "purchase_models"),
    # Names the first ten of its persons, in the order of their ids.
    "daily_report",
}
AN_ID = re.compile(r"(?:user|visitor)_\d+|-s\d+\b|Mozilla")
MANY = SimulationOptions(
    events=3000,
    seed=11,
    start=datetime(2024, 5, 1, tzinfo=UTC),
    days=4,
    users=60,
    products=20,
    faults=Faults(late=0.02, duplicate=0.02, conflicting=0.02, malformed=0.02),
    habits=Habits(anonymous=0.8, late_login=0.3, never_login=0.2, second_device=0.3, refunds=0.1, items=0.2),
    files=False,
)


@pytest.fixture
def given(stack: Stack, servers: Settings) -> tuple[Settings, dict[str, str]]:
    """Settings that name the servers, and the environment that does."""
    return servers, stack.env() | {"ELASTICSEARCH_ALIAS": f"live_{uuid4().hex}"}


def rows_by_ids(settings: Settings, table: Table, rows: Rows) -> str:
    """Rows as text, with ids in place of pseudonyms, in an order that does not depend on these."""
    ids = dict(query(settings, "SELECT pseudonym, id FROM pseudonyms"))
    computed = set() if table in (EVENTS, IDENTITY_TIES) else OF_PERSON

    def plain(value: Any) -> Any:
        if isinstance(value, str):
            beginning, colon, end = value.rpartition(":")
            return f"{beginning}{colon}{ids.get(end, end)}"
        return [plain(each) for each in value] if isinstance(value, list) else value

    found = []
    for row in map(without_what_is_not_kept, rows):
        kept = {name: plain(value) for name, value in row.items() if name not in OF_RUN | computed}
        if kept.get("client_session_ids"):
            kept["client_session_ids"].sort()
        found.append(repr(kept))
    return "\n".join(sorted(found))


def new_shop(
    stack: ExitStack,
    definitions: dg.Definitions,
    given: tuple[Settings, dict[str, str]],
    folder: Path,
    **more: str,
) -> Pipeline:
    """A pipeline of its own, with what else its environment has."""
    postgres, environment = given
    patch = stack.enter_context(pytest.MonkeyPatch.context())
    settings = stack.enter_context(pipeline_environment(postgres, environment | more, patch, folder))
    return Pipeline(settings, dg.DagsterInstance.ephemeral(), definitions)


def tables(shop: Pipeline) -> dict[str, str]:
    found = {
        f"lake/{table.name}": rows_by_ids(shop.settings, table, shop.lake(table))
        for table in TABLES.values()
        if table.in_lake
        and (Path(shop.settings.lake) / table.name).exists()
        and table.name not in NOT_COMPARED
    }
    return found | {
        table.served_name: rows_by_ids(shop.settings, table, shop.served(table))
        for table in SERVED_TABLES
        if table.name not in NOT_COMPARED
    }


def ids_in_stores(shop: Pipeline) -> dict[str, list[str]]:
    """The ids that are found in each store, but for the table of pseudonyms."""
    postgres = " ".join(
        text
        for name in METADATA.tables
        if name != "pseudonyms"
        for (text,) in query(shop.settings, f'SELECT row_to_json(its)::text FROM "{name}" AS its')
    )
    runs = (run.run_id for run in shop.instance.get_runs())
    dagster = " ".join(repr(entry) for run_id in runs for entry in shop.instance.all_logs(run_id))
    texts = {"lake": texts_in_files(Path(shop.settings.lake)), "postgres": postgres, "dagster": dagster}
    assert all(texts.values())
    return {store: sorted(set(AN_ID.findall(text))) for store, text in texts.items()}


@pytest.mark.long
def test_a_shop_of_pseudonyms_has_the_tables_of_one_of_ids_and_no_id_elsewhere(
    definitions: dg.Definitions, given: tuple[Settings, dict[str, str]], tmp_path: Path
):
    made = []
    for name in ("ids", "pseudonyms"):
        with ExitStack() as stack:
            shop = new_shop(stack, definitions, given, tmp_path / name, PSEUDONYMS=str(name == "pseudonyms"))
            run_simulation(shop.settings, MANY)
            shop.ingest()
            shop.catch_up()
            shop.train()
            made.append(tables(shop))
            found = ids_in_stores(shop)
            if name == "pseudonyms":
                assert found == {"lake": [], "postgres": [], "dagster": []}
            else:
                assert found["lake"]
                assert found["postgres"]
    expected, kept = made
    assert kept.keys() == expected.keys()
    assert all(
        expected[name] for name in ("carts", "identities", "product_recommendations", "lake/identity_ties")
    )
    assert [name for name in expected if kept[name] != expected[name]] == []


@pytest.mark.slow
def test_a_person_is_exported_and_erased_by_their_id_and_comes_back_as_another(
    definitions: dg.Definitions, given: tuple[Settings, dict[str, str]], tmp_path: Path
):
    with ExitStack() as stack:
        shop = new_shop(stack, definitions, given, tmp_path, PSEUDONYMS="true")
        chosen = dg.AssetSelection.assets(*MADE)
        shop = Pipeline(shop.settings, shop.instance, definitions, chosen)
        shop.ingest(*(event | {"session_id": f"visit of {event['event_id'][0]}"} for event in EVENTS_OF_ANN))
        shop.ingest(*EVENTS_OF_BOB)
        shop.catch_up()
        kept = {
            sent_id: each for each, sent_id in query(shop.settings, "SELECT pseudonym, id FROM pseudonyms")
        }
        assert kept.keys() == {"ann-7", "phone-a", "visit of a", "bob-8", "phone-b"}
        ann = kept["ann-7"]

        api = create_app(shop.settings).test_client()
        assert {row["user_id"] for row in api.get("/sessions?user_id=ann-7").json["sessions"]} == {ann}
        assert api.get("/api/persons/ann-7").json["anonymous_ids"][0]["anonymous_id"] == "phone-a"
        held = run("export", "ann-7")
        assert held["ids"]["users"] == [ann]
        assert [(row["kind"], row["id"]) for row in held["pseudonyms"]] == [
            ("anonymous", "phone-a"),
            ("user", "ann-7"),
        ]
        assert [row["event_id"] for row in held["lake"]["events"]] == ["a1", "a2", "a3", "a4"]
        asked = run("erase", "ann-7")
        assert asked["postgres"]["clickstream_sessions"] > 0
        assert run("erase", "--dry-run", "ann-7")["postgres"] == {}
        assert api.get("/sessions?user_id=ann-7").json["sessions"] == []

        # What comes until the night is theirs still.
        shop.ingest(sent("a7", "02 12:00", user_id="ann-7"))
        assert definitions.resolve_job_def("erase").execute_in_process(instance=shop.instance).success
        assert shop.reported("erased_records", "records") == 6
        assert query(shop.settings, "SELECT id FROM pseudonyms ORDER BY id") == [("bob-8",), ("phone-b",)]
        shop.catch_up()
        shop.train()
        shop.ingest(sent("a9", "03 15:00", user_id="ann-7"))
        upkeep = definitions.resolve_job_def("upkeep")
        assert upkeep.execute_in_process(instance=shop.instance).success
        assert query(shop.settings, "SELECT done_at IS NOT NULL FROM erasures") == [(True,)]
        shop.catch_up()
        texts = texts_in_files(Path(shop.settings.lake))
        assert [each for each in (*IDS, ann, kept["phone-a"], kept["visit of a"]) if each in texts] == []
        ((again,),) = query(shop.settings, "SELECT pseudonym FROM pseudonyms WHERE id = 'ann-7'")
        assert {row["user_id"] for row in shop.served(SESSIONS)} == {kept["bob-8"], again}
        assert again != ann
