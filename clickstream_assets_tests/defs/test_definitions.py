"""The asset graph as a person sees it: complete, described, and loadable the way Dagster loads it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest
import yaml

from clickstream_assets import catalogue
from clickstream_assets.defs import code_links
from clickstream_assets.defs.partitions import daily
from clickstream_assets.settings import Settings
from clickstream_assets_tests.dagster_private import (
    AssetGraph,
    BetaWarning,
    PreviewWarning,
    SupersessionWarning,
    TimeWindowFreshnessPolicy,
)

ROOT = Path(__file__).parents[2]

JOBS = {
    "ingest": {"raw"},
    "erase": {"raw"},
    "catalogue": {"products", "serving"},
    "refresh": {"sessions", "segments", "reports", "products", "models", "serving"},
    "train": {"models", "predictions", "serving"},
    "experiments": {"experiments"},
    "stream": {"windows"},
    "morning_report_job": {"sessions", "segments", "reports", "serving"},
}
"""The groups that each job brings up to date."""
MAILED = {"report_mail"}
TRAINED = {
    *("interactions", "model_parameters", "popular_products", "als_model", "model_evaluation"),
    "product_recommendations",
    *("next_product_models", "published_next_product"),
    *("purchase_models", "person_predictions", "published_predictions"),
}
NOT_IN_JOB = {
    "ingest": {"erased_records"},
    "erase": {
        *("raw_events", "events", "duplicate_events", "conflicting_events", "rejected_events"),
        *("identity_ties", "exchange_rates", "rejected_counts"),
    },
    "catalogue": TRAINED | {"published_days", "published_shoppers"},
    "refresh": MAILED | TRAINED | {"product_feed"},
    "train": {"interaction_days", "published_days", "published_shoppers", "published_products"},
    "morning_report_job": MAILED | TRAINED | {"published_products"},
}
CHECKS_OF_OTHERS = {"refresh": {("product_recommendations", "training_keeps_up")}}
"""Checks that a job carries out on what another makes."""

# The table whose columns an asset shows; the others have the asset's name.
SHOWN_TABLES = {
    "als_model": catalogue.ITEM_FACTORS,
    "published_days": catalogue.SESSIONS,
    "published_experiments": catalogue.EXPERIMENT_RESULTS,
    "published_next_product": catalogue.NEXT_PRODUCT_MODELS,
    "published_predictions": catalogue.PERSON_PREDICTIONS,
    "published_shoppers": catalogue.CARTS,
    "published_products": catalogue.PRODUCTS,
}
# By asset or by group; all others are tables of the lake.
KINDS = {
    "serving": {"postgres"},
    "windows": {"spark", "delta", "postgres"},
    "live_events": {"spark", "elasticsearch"},
    "published_experiments": {"postgres"},
    "report_mail": {"postgres"},
    "rejected_counts": {"postgres"},
}


@pytest.fixture(scope="module")
def graph(definitions: dg.Definitions) -> AssetGraph:
    return definitions.resolve_asset_graph()


@pytest.fixture(scope="module")
def groups(graph: AssetGraph) -> dict[str, set[str]]:
    """Names of the assets that something makes, by group."""
    groups: dict[str, set[str]] = {}
    for key in graph.materializable_asset_keys:
        groups.setdefault(str(graph.get(key).group_name), set()).add(key.to_user_string())
    return groups


def names(keys: Iterable[dg.AssetKey]) -> set[str]:
    return {key.to_user_string() for key in keys}


def run_program(name: str, *arguments: str, cwd: Path, home: Path) -> str:
    """Run one of the environment's programs; return what it says."""
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    done = subprocess.run(
        [Path(sys.executable).parent / name, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | {"DAGSTER_HOME": str(home)},
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def python(folder: Path, code: str, **settings: str) -> str:
    """Run code in a process of its own with these settings; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | settings,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_everything_that_the_definitions_name_can_be_resolved(definitions: dg.Definitions):
    dg.Definitions.validate_loadable(definitions)


def test_dagsters_makers_are_told_nothing_and_ask_nobody_to_join_them(tmp_path: Path):
    configured = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    asked = {name: configured[name] for name in ("telemetry", "nux")}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(asked))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert not instance.telemetry_enabled
        assert not instance.nux_enabled


@pytest.mark.server
def test_a_code_server_loads_the_workspace_file(tmp_path: Path):
    said = run_program(
        "dagster",
        "definitions",
        "validate",
        "-w",
        str(ROOT / "workspace.yaml"),
        cwd=tmp_path,
        home=tmp_path / "dagster",
    )
    assert "Validation successful for code location clickstream_assets." in said


@pytest.mark.slow
def test_dg_loads_the_project(tmp_path: Path):
    said = run_program("dg", "check", "defs", cwd=ROOT, home=tmp_path / "dagster")
    assert "All definitions loaded successfully." in said


@pytest.mark.slow
def test_nothing_in_use_is_something_that_dagster_may_change(tmp_path: Path):
    # Each module by itself, in a process that has none of them yet: loading the folder silences warnings, and
    # decorators warn once, when they are imported.
    folder = ROOT / "clickstream_assets"
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in [*folder.glob("defs/**/*.py"), *folder.glob("resources/*.py")]
    ]
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", f"import {', '.join(sorted(modules))}"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    kinds = "|".join(
        kind.__name__ for kind in (BetaWarning, PreviewWarning, SupersessionWarning, DeprecationWarning)
    )
    warned = re.findall(rf"(?:/dagster/|clickstream_assets/)\S+:\d+: (?:{kinds}): (.+?) is ", done.stderr)
    # Links to code have been in beta since 1.8, and there is no other way to have them.
    assert set(warned) == {"Class `LocalFileCodeReference`", "Class `CodeReferencesMetadataValue`"}


def test_every_asset_says_what_it_is_and_whose(graph: AssetGraph):
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.owners == ["team:clickstream"], key
        assert node.description, key
        expected = {"kafka"} if key == dg.AssetKey("clickstream_events") else None
        kinds = expected or KINDS.get(key.to_user_string()) or KINDS.get(node.group_name, {"delta"})
        assert node.kinds == kinds, key


def test_what_comes_from_kafka_is_overdue_in_minutes_tables_in_an_hour_models_and_reports_in_a_day(
    graph: AssetGraph,
):
    minutes, hour, day = timedelta(minutes=15), timedelta(hours=1), timedelta(hours=26)
    windows = {"raw": minutes, "windows": minutes}
    windows |= dict.fromkeys(("models", "predictions", "experiments"), day)
    for key in graph.materializable_asset_keys:
        node, name = graph.get(key), key.to_user_string()
        policy = node.freshness_policy
        assert isinstance(policy, TimeWindowFreshnessPolicy), name
        is_daily = name in (
            *("daily_report", "report_mail", "product_recommendations"),
            *("published_next_product", "published_predictions", "erased_records"),
        )
        group = "" if name == "interaction_days" else str(node.group_name)
        expected = day if is_daily else windows.get(group, hour)
        assert policy.fail_window.to_timedelta() == expected, name
        assert policy.warn_window
        assert policy.warn_window.to_timedelta() == 0.9 * expected, name


@pytest.mark.slow
def test_an_asset_says_where_its_tables_are(tmp_path: Path):
    # In a process of its own, as the places are those of the settings at the start.
    said = python(
        tmp_path,
        "from clickstream_assets.definitions import defs\n"
        "graph = defs().resolve_asset_graph()\n"
        "for key in graph.get_all_asset_keys():\n"
        "    node = graph.get(key)\n"
        "    names = ('dagster/uri', 'dagster/table_name', 'other_places', 'dagster/storage_kind')\n"
        "    print(key.to_user_string(), *(node.metadata.get(name) for name in names), sep='|')",
        LAKE_PATH="s3a://bucket/lake",
        POSTGRES_DB="shop",
        KAFKA_BOOTSTRAP_SERVERS="kafka:9092",
        KAFKA_TOPIC="clicks",
    )
    places = dict(line.split("|", 1) for line in said.splitlines())
    assert places["clickstream_events"] == "kafka://kafka:9092/clicks|None|None|kafka"
    others = ", ".join(f"s3a://bucket/lake/cart_{name}" for name in ("days", "steps", "states", "inputs"))
    assert places["carts"] == f"s3a://bucket/lake/carts|carts|{others}|delta"
    assert places["product_windows"] == "s3a://bucket/lake/product_windows|shop.product_windows|None|delta"
    assert places["rejected_counts"] == (
        "None|shop.rejected_counts|shop.record_days, shop.rejected_samples|postgres"
    )
    assert places["published_days"].startswith("None|shop.clickstream_sessions|shop.user_segments, shop.")
    assert places["live_events"] == "None|clickstream_data|None|elasticsearch"
    assert places["report_mail"] == "None|shop.report_mails|None|postgres"


def test_an_asset_links_to_the_function_that_makes_it(graph: AssetGraph):
    for key in graph.materializable_asset_keys:
        (link,) = graph.get(key).metadata["dagster/code_references"].code_references
        file = Path(link.file_path)
        assert file.is_relative_to(ROOT / "clickstream_assets" / "defs")
        code = "".join(file.read_text().splitlines(keepends=True)[link.line_number - 1 :])
        assert re.match(r"@table_assets?\b", code), key
        name = key.to_user_string()
        assert name in code.partition('"""')[0] or graph.get(key).group_name in ("raw", "windows"), key


def test_a_link_leads_into_the_repository_that_a_setting_names_and_nowhere_without_the_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    url = "https://git.example/shop/clickstream_assets/blob/main"
    metadata = code_links.code_link(funnel_asset, Settings(_env_file=None, code_url=f"{url}/"))
    (link,) = metadata["dagster/code_references"].code_references
    line = funnel_asset.__code__.co_firstlineno
    assert link == dg.UrlCodeReference(url=f"{url}/clickstream_assets_tests/defs/test_definitions.py#L{line}")
    # An image holds the package, and no project around it.
    monkeypatch.setattr(code_links, "_ROOT", tmp_path)
    assert code_links.code_link(funnel_asset, Settings(_env_file=None)) == {}


def funnel_asset() -> None:
    """Stand for the body of an asset."""


def test_an_asset_shows_the_columns_of_its_table(graph: AssetGraph):
    for name in names(graph.materializable_asset_keys) - MAILED:
        table = SHOWN_TABLES.get(name) or catalogue.TABLES[name]
        metadata = graph.get(dg.AssetKey(name)).metadata
        shown = metadata["dagster/column_schema"].columns
        assert [
            (column.name, column.type, column.description, column.constraints.nullable) for column in shown
        ] == [
            (column.name, str(column.type), column.description, column.nullable) for column in table.columns
        ]
        unique = {column.name for column in shown if column.constraints.unique}
        assert unique == (set(table.key) if len(table.key) == 1 else set())
        assert metadata["grain"] == table.grain
        assert metadata["key"] == ", ".join(table.key)


def test_every_table_of_the_lake_is_some_assets(graph: AssetGraph):
    described = set()
    for name in names(graph.materializable_asset_keys) - MAILED:
        metadata = graph.get(dg.AssetKey(name)).metadata
        described |= set(metadata["tables"].split(", "))
    # Live events are Elasticsearch's; counts of records, identities and published carts are PostgreSQL's. What the
    # counts are made from is no table that anybody asks for, as the rules of a batch are none.
    expected = {table.name for table in catalogue.TABLES.values() if table.in_lake}
    expected |= {
        "live_events",
        "rejected_counts",
        "record_days",
        "identities",
        "profiling_refusals",
        "published_parts",
    }
    assert described == expected - {"ingest_rules", "record_counts"}


def test_daily_assets_share_their_days_and_take_a_range_in_one_run(
    graph: AssetGraph, groups: dict[str, set[str]]
):
    partitioned = {key for key in graph.get_all_asset_keys() if graph.get(key).partitions_def}
    # No day lacks a mail that nobody asked for.
    of_shoppers = {"sessions", "shopper_events", "user_segments", "interaction_days"}
    assert names(partitioned) == of_shoppers | groups["reports"] - MAILED | {"published_days"}
    for key in partitioned:
        assert graph.get(key).partitions_def == daily()
        assert graph.get(key).backfill_policy == dg.BackfillPolicy.single_run()


def test_days_are_utc_and_today_is_one_of_them():
    days = daily()
    assert days.timezone == "UTC"
    assert days.end_offset == 1


def test_what_stops_a_run_is_checked_before_anything_rests_on_it(graph: AssetGraph):
    checks = {
        (key.asset_key.to_user_string(), key.name): graph.get(key).blocking for key in graph.asset_check_keys
    }
    # Made from the catalogue.
    of_tables = {check for check in checks if check[1].endswith(("values_are_allowed", "keys_are_unique"))}
    assert {checks[check] for check in of_tables} == {True}
    assert {check: checks[check] for check in checks.keys() - of_tables} == {
        ("events", "counts_close"): True,
        ("events", "event_ids_are_unique"): True,
        # One who sends rubbish stops nobody else's events.
        ("rejected_events", "rejected_shares_are_usual"): False,
        ("events", "left_out_shares_are_usual"): False,
        ("sessions", "session_ids_are_unique"): True,
        # A session of a day before, which may be brought up to date later, can go on into the run's days.
        ("sessions", "sessions_hold_all_events"): False,
        # What the sender means by an id is for people to find out.
        ("sessions", "ids_are_of_one_person"): False,
        ("carts", "bought_carts_have_their_purchase"): False,
        ("customer_segments", "scores_follow_behaviour"): False,
        ("cohort_retention", "cohorts_hold_every_user"): False,
        ("product_performance", "products_add_up_to_the_day"): True,
        ("category_conversion", "categories_add_up_to_the_day"): True,
        ("daily_summary", "users_are_those_of_the_segments"): True,
        ("daily_summary", "revenue_is_that_of_the_sessions"): False,
        # Warned of: there is no rate to add them up by.
        ("daily_summary", "amounts_are_in_the_shops_currency"): False,
        ("hourly_summary", "hours_add_up_to_the_day"): True,
        ("funnel", "funnel_starts_with_all_viewers"): False,
        ("daily_report", "reports_say_what_the_summary_says"): True,
        ("campaign_attribution", "each_model_shares_out_all_revenue"): True,
        ("campaign_attribution", "each_model_shares_out_all_orders"): True,
        # Late events are on the batch side only, and the batch side can be behind.
        ("product_windows", "stream_agrees_with_batch"): False,
        ("flash_sale_alerts", "alerts_follow_from_windows"): False,
        ("interactions", "interactions_hold_all_days"): True,
        ("model_evaluation", "chosen_is_not_worse_than_popularity"): True,
        ("purchase_models", "accepted_are_better_than_simple_rules"): True,
        ("experiment_exposures", "exposures_close"): True,
        # What is found is shown all the same, and says that it cannot be believed.
        ("experiment_results", "sizes_are_those_of_the_shares"): False,
        # What was trained before stays served.
        ("product_recommendations", "training_keeps_up"): False,
    }


def test_every_table_of_the_lake_has_the_checks_of_the_catalogue(
    graph: AssetGraph, groups: dict[str, set[str]]
):
    checks = {
        (key.asset_key.to_user_string(), key.name)
        for key in graph.asset_check_keys
        if graph.get(key).blocking
    }
    for key in graph.materializable_asset_keys:
        node, asset = graph.get(key), key.to_user_string()
        if "delta" not in node.kinds:
            continue
        shown, *others = node.metadata["tables"].split(", ")
        for table in (shown, *others):
            prefix = "" if table == shown else f"{table}_"
            assert (asset, f"{prefix}values_are_allowed") in checks
            # Records are accounted for by `counts_close` and `event_ids_are_unique`.
            if asset not in groups["raw"] and "batch" not in catalogue.TABLES[table].by_name:
                unique = {"sessions": "session_ids_are_unique", "product_windows": "window_keys_are_unique"}
                assert (asset, unique.get(table, f"{prefix}keys_are_unique")) in checks


@pytest.mark.parametrize("job", [*JOBS, "report_mail_job"])
def test_a_job_takes_its_assets_with_all_their_checks(
    definitions: dg.Definitions, graph: AssetGraph, groups: dict[str, set[str]], job: str
):
    in_groups = {name for group in JOBS.get(job, ()) for name in groups[group]}
    assets = in_groups - NOT_IN_JOB.get(job, set()) or MAILED
    layer = definitions.resolve_job_def(job).asset_layer
    assert names(layer.executable_asset_keys) == assets
    others = CHECKS_OF_OTHERS.get(job, set())
    checks = {
        key
        for key in graph.asset_check_keys
        if key.asset_key.to_user_string() in assets or (key.asset_key.to_user_string(), key.name) in others
    }
    assert set(layer.asset_graph.asset_check_keys) == checks


def test_checks_of_the_streams_can_be_run_without_them(definitions: dg.Definitions):
    layer = definitions.resolve_job_def("stream_checks").asset_layer
    assert not layer.executable_asset_keys
    assert {key.name for key in layer.asset_graph.asset_check_keys} == {
        "window_keys_are_unique",
        "keys_are_unique",
        "values_are_allowed",
        "stream_agrees_with_batch",
        "alerts_follow_from_windows",
    }


def test_jobs_leave_no_asset_to_be_made_by_hand(groups: dict[str, set[str]]):
    jobs = ("ingest", "refresh", "train", "experiments", "stream")
    assert groups.keys() == {group for job in jobs for group in JOBS[job]}


@pytest.mark.parametrize(
    ("sensor", "job"),
    [
        ("new_records", "ingest"),
        ("dirty_days", "refresh"),
        ("untrained_interactions", "train"),
        ("new_products", "catalogue"),
        ("new_exposures", "experiments"),
        ("new_stream_records", "stream"),
    ],
    ids=["ingest", "refresh", "train", "catalogue", "experiments", "stream"],
)
def test_a_sensor_that_is_on_from_the_start_runs_each_job(definitions: dg.Definitions, sensor: str, job: str):
    definition = definitions.resolve_sensor_def(sensor)
    assert definition.job_name == job
    assert definition.default_status is dg.DefaultSensorStatus.RUNNING


@pytest.mark.parametrize("file", ["dagster.yaml", "helm/templates/config.yaml"])
def test_no_sensor_waits_for_another_ones_thread(definitions: dg.Definitions, file: str):
    (threads,) = re.findall(r"^ +num_workers: (\d+)$", (ROOT / file).read_text(), re.MULTILINE)
    assert int(threads) >= len(list(definitions.get_repository_def().sensor_defs))


def test_one_process_runs_a_whole_run(definitions: dg.Definitions):
    assert definitions.resolve_job_def("refresh").executor_def is dg.in_process_executor


@pytest.mark.parametrize(
    ("downstream", "upstream"),
    [
        ("raw_events", {"clickstream_events"}),
        ("events", {"raw_events"}),
        ("rejected_counts", {"events", "duplicate_events", "conflicting_events", "rejected_events"}),
        ("erased_records", {"events", "experiment_exposures"}),
        ("identity_ties", {"events"}),
        ("exchange_rates", {"events"}),
        ("sessions", {"events", "identity_ties", "exchange_rates"}),
        ("shopper_events", {"events", "identity_ties", "exchange_rates", "sessions"}),
        ("carts", {"events", "shopper_events"}),
        ("user_segments", {"shopper_events"}),
        ("customer_segments", {"events", "shopper_events", "carts", "interaction_days"}),
        ("cohort_retention", {"user_segments"}),
        ("campaign_touches", {"shopper_events"}),
        ("campaign_attribution", {"shopper_events", "campaign_touches"}),
        (
            "published_shoppers",
            {"carts", "customer_segments", "cohort_retention", "identity_ties", "interaction_days"},
        ),
        ("products", {"events", "exchange_rates", "product_feed"}),
        ("published_products", {"products"}),
        ("product_performance", {"shopper_events"}),
        ("category_conversion", {"shopper_events"}),
        ("daily_summary", {"events", "sessions", "shopper_events", "user_segments"}),
        ("hourly_summary", {"sessions", "shopper_events"}),
        ("funnel", {"shopper_events", "customer_segments"}),
        (
            "daily_report",
            {
                "daily_summary",
                "product_performance",
                "category_conversion",
                "funnel",
                "user_segments",
                "carts",
                "customer_segments",
                "campaign_attribution",
            },
        ),
        ("report_mail", {"published_days"}),
        ("product_windows", {"clickstream_events"}),
        ("flash_sale_alerts", {"product_windows"}),
        ("live_events", {"clickstream_events"}),
        ("interaction_days", {"shopper_events"}),
        ("interactions", {"interaction_days"}),
        ("model_parameters", {"product_performance", "interactions", "shopper_events"}),
        ("popular_products", {"product_performance", "interactions", "model_parameters"}),
        ("als_model", {"interactions", "popular_products", "model_parameters"}),
        ("model_evaluation", {"interaction_days", "shopper_events", "als_model", "model_parameters"}),
        ("next_product_models", {"interactions", "interaction_days", "shopper_events", "products"}),
        ("published_next_product", {"next_product_models"}),
        ("purchase_models", {"user_segments", "interaction_days", "shopper_events"}),
        ("person_predictions", {"user_segments", "interaction_days", "purchase_models"}),
        ("published_predictions", {"person_predictions", "purchase_models"}),
        (
            "experiment_results",
            {"experiment_exposures", "shopper_events", "identity_ties", "interaction_days"},
        ),
        ("published_experiments", {"experiment_results"}),
        (
            "product_recommendations",
            {"interactions", "shopper_events", "popular_products", "als_model", "model_evaluation"},
        ),
    ],
)
def test_an_asset_comes_after_what_it_reads(graph: AssetGraph, downstream: str, upstream: set[str]):
    assert names(graph.get(dg.AssetKey(downstream)).parent_keys) == upstream


def test_the_days_tables_that_are_served_are_published_together(graph: AssetGraph):
    served = {table.name for table in catalogue.SERVED_TABLES}
    daily_assets = {key for key in graph.get_all_asset_keys() if graph.get(key).partitions_def}
    parents = names(graph.get(dg.AssetKey("published_days")).parent_keys)
    assert parents == names(daily_assets) & served
    assert parents >= {"sessions", "user_segments", "daily_summary", "funnel", "daily_report"}
