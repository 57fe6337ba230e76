import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from clickstream_assets.commands.app import app
from clickstream_assets.ingest.event_frames import load_events
from clickstream_assets.ingest.fields import ValidationRules
from clickstream_assets.settings import Settings


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLICKSTREAM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ALS_FACTORS", "8")


def evaluate(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def run(*arguments: str | Path) -> dict:
    result = evaluate(*arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def fail(*arguments: str | Path) -> str:
    result = evaluate(*arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr


def visits(users: int = 80, products: int = 40, per_user: int = 12) -> list[tuple[str, str, int]]:
    """User, product and seconds since 1970; two kinds of shoppers, each with their half of the products."""
    random = np.random.default_rng(4)
    found = []
    # From 1: a user whose id is 0 is a guest.
    for user in range(1, users + 1):
        own = random.choice(products // 2, per_user, replace=False) + (user % 2) * (products // 2)
        found += [(str(user), str(product), 1_700_000_000 + 60 * order) for order, product in enumerate(own)]
    return found


def iso(seconds: int) -> str:
    return str(np.datetime64(seconds, "s"))


def table_of_ratings(folder: Path, header: str, line: str) -> Path:
    file = folder / "ratings.csv.gz"
    rows = [
        line.format(user=user, product=product, time=time, iso=iso(time)) for user, product, time in visits()
    ]
    with gzip.open(file, "wt") as text:
        text.write("\n".join([header, *rows]) + "\n")
    return file


@pytest.mark.slow
def test_json_lines_are_judged_and_one_algorithm_is_chosen(tmp_path):
    lines = [
        json.dumps({"user_id": user, "product_id": product, "event_type": "view", "timestamp": iso(time)})
        for user, product, time in visits()
    ]
    file = tmp_path / "events.jsonl"
    file.write_text("\n".join([*lines, lines[0], '{"event_type": "view"}']) + "\n")

    result = evaluate("--events", file, "--k", "5", "--seed", "7")

    report = json.loads(result.stdout)
    expected = {
        "split": "temporal",
        "test_fraction": 0.25,
        "k": 5,
        "seed": 7,
        "train_events": 720,
        "test_events": 240,
        "users": 80,
        "items": 40,
        "evaluated_users": 80,
        "target": "next",
        "evaluated_pairs": 240,
        "share_of_pairs": 1.0,
    }
    assert {name: report[name] for name in expected} == expected
    [left_out] = report["left_out"].values()
    assert (left_out["duplicate"], left_out["rejected"]) == (1, 1)
    assert [rule["records"] for rule in left_out["by_rule"]] == [1]
    assert set(report["targets"]) == {"next", "new", "purchases"}
    personal = {"blend", "als", "ease", "item_knn", "category"}
    assert set(report["algorithms"]) == personal | {"trending", "popularity"}
    for figures in report["algorithms"].values():
        assert set(figures) >= {"ndcg", "map", "precision", "recall", "coverage", "seconds"}
        low, high = figures["ndcg_interval"]
        assert low <= figures["ndcg"] <= high
    assert report["chosen"] in personal
    assert report["algorithms"]["als"]["ndcg"] > report["algorithms"]["popularity"]["ndcg"]
    assert "1 duplicate, 1 rejected" in result.stderr


@pytest.mark.long
def test_the_same_seed_gives_the_same_figures(tmp_path):
    file = tmp_path / "u.data"
    file.write_text("".join(f"{user}\t{product}\t3\t{time}\n" for user, product, time in visits()))

    def figures(seed: int) -> list[float]:
        report = run("--events", file, "--split", "random", "--seed", str(seed))
        return [found["ndcg"] for found in report["algorithms"].values()]

    assert figures(1) == figures(1)
    assert figures(1) != figures(2)


@pytest.mark.parametrize(
    ("header", "line"),
    [
        ("user_id,product_id,timestamp", "{user},{product},{time}"),
        ("user_id,product_id,rating,timestamp", "{user},{product},4.5,{time}"),
        ("userId,movieId,rating,timestamp", "{user},{product},4.5,{time}"),
        ("timestamp,user_id,item_id", "{iso},{user},{product}"),
    ],
)
def test_tables_of_ratings_are_read_by_their_header(tmp_path, duckdb_engine, header, line):
    loaded = load_events(
        duckdb_engine, table_of_ratings(tmp_path, header, line), ValidationRules.of(Settings(_env_file=None))
    )

    assert loaded.left_out == {}
    rows = duckdb_engine.to_arrow(loaded.events.select("user_id", "product_id", "event_time")).to_pylist()
    assert sorted(
        (row["user_id"], row["product_id"], int(row["event_time"].timestamp())) for row in rows
    ) == sorted(visits())


@pytest.mark.slow
def test_a_table_of_ratings_is_judged(tmp_path):
    report = run(
        "--events", table_of_ratings(tmp_path, "user_id,product_id,timestamp", "{user},{product},{time}")
    )

    assert (report["train_events"], report["test_events"]) == (720, 240)
    assert (report["users"], report["items"], report["evaluated_users"]) == (80, 40, 80)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("notes.txt", "dear diary", "of no known format"),
        ("empty.jsonl", "", "is empty"),
        ("ratings.csv", "user_id,product_id,timestamp\n1,2,yesterday\n", "seconds since 1970"),
        ("ratings.csv", "user_id,product_id,timestamp\n1,,5\n", "1 rows have no product_id"),
        (
            "one.jsonl",
            '{"user_id": 1, "product_id": 2, "event_type": "view", "timestamp": "2024-03-01T09:00:00Z"}',
            "is earlier",
        ),
        (
            "search.jsonl",
            '{"user_id": 1, "event_type": "search", "timestamp": "2024-03-01T09:00:00Z"}',
            "No view, click",
        ),
    ],
)
def test_an_unusable_file_is_said_in_words(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)

    assert words in fail("--events", tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    assert "nowhere.jsonl does not exist" in fail("--events", tmp_path / "nowhere.jsonl")


def test_an_unusable_setting_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("ALS_FACTORS", "none")

    assert "ALS_FACTORS='none'" in fail("--events", tmp_path / "u.data")
