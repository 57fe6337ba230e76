"""The pages, against the code: what they name is there, and what they show works."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg
import pytest
import typer
from apiflask import APIFlask
from typer.core import TyperGroup

from clickstream_assets import catalogue
from clickstream_assets.api.app import create_app
from clickstream_assets.catalogue.rfm import RFM_SEGMENTS
from clickstream_assets.commands.app import app as command_line
from clickstream_assets.definitions import defs
from clickstream_assets.defs.checks import table_checks
from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.settings import Settings
from clickstream_assets_tests.dagster_private import AssetGraph

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/*.md"))
)

# Variables that are not ours: Dagster's, Spark's, Hadoop's, delta-rs's, PostgreSQL's.
OTHERS_VARIABLES = {
    "AWS_ACCESS_KEY_ID",
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "AWS_S3_LOCKING_PROVIDER",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "DAGSTER_HOME",
    "DAGSTER_POSTGRES_DB",
    "HADOOP_CONF_DIR",
    "JAVA_TOOL_OPTIONS",
    "PGSSLMODE",
    "PGSSLROOTCERT",
    "PYSPARK_PYTHON",
    "SPARK_MASTER_OPTS",
    "SPARK_WORKER_OPTS",
    # The Makefile's.
    "TEST_PROCESSES",
}
# Variables of the older projects that have no effect here, which moving-over.md says.
OLD_VARIABLES = {
    "ENABLE_PARQUET_SINK",
    "OUTPUT_PATH",
    "PARQUET_CHECKPOINT_PATH",
    "PARQUET_OUTPUT_PATH",
    "POSTGRES_ANALYTICS_ENABLED",
    "SPARK_APP_NAME",
}

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
VARIABLE = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+")
# What stands before the last "=" of an assignment at the start of a line.
ASSIGNED = re.compile(r"^(?:[A-Z_][\w, ]*(?:: [^=\n]+)? = )+", re.MULTILINE)
ROUTE = re.compile(r"(?:GET )?(/(?:api|health|sessions|real-time-events|metrics|openapi\.json)\b[^\s?`]*)")


@cache
def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def assigned_in(code: str) -> set[str]:
    """Names in capitals that code gives values to."""
    return {name for left in ASSIGNED.findall(code) for name in VARIABLE.findall(left)}


def fences(page: str, language: str) -> list[str]:
    """The blocks of code of a page in a language."""
    return [code for _, name, code in FENCE.findall(text_of(page)) if name == language]


def spans(page: str) -> list[str]:
    """What a page has between backticks, its blocks of code left out."""
    return [" ".join(span.split()) for span in SPAN.findall(FENCE.sub("", text_of(page)))]


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return defs()


@pytest.fixture(scope="module")
def graph(definitions: dg.Definitions) -> AssetGraph:
    return definitions.resolve_asset_graph()


@pytest.fixture(scope="module")
def code() -> list[Path]:
    """The modules of the package and of its tests."""
    packages = ("clickstream_assets", "clickstream_assets_tests")
    return [path for package in packages for path in (ROOT / package).rglob("*.py")]


@pytest.fixture(scope="module")
def routes() -> set[str]:
    """The API's routes, as the pages write them."""
    rules = create_app(Settings(_env_file=None)).url_map.iter_rules()
    return {re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule) for rule in rules}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str):
    relative = [target.partition("#")[0] for target in LINK.findall(text_of(page)) if "://" not in target]
    missing = [target for target in relative if not ((ROOT / page).parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES)
def test_pictures_are_there_and_described(page: str):
    pictures = PICTURE.findall(text_of(page))
    assert all(description for description, _ in pictures)
    assert not [target for _, target in pictures if not ((ROOT / page).parent / target).is_file()]


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_are_there(page: str):
    """Paths from the root, the package or the tests; and what extending.md is about to make."""
    named = {
        span
        for span in spans(page)
        if re.fullmatch(r"[\w.]+(/[\w.]+)+(\.py|\.sh|\.md|\.yaml|\.yml|\.xml|/)", span)
        and not span.startswith(("scripts/", "src/", "pyspark/"))
    }
    new = {path for path, _ in examples()}
    places = (ROOT, ROOT / "clickstream_assets", ROOT / "clickstream_assets_tests")
    assert not {path for path in named - new if not any((place / path).exists() for place in places)}


# Of moving-over.md, which names the older projects' scripts, nothing.
@pytest.mark.parametrize("page", sorted({*PAGES} - {"docs/moving-over.md"}))
def test_modules_that_are_named_are_there(page: str, code: list[Path]):
    named = {span for span in spans(page) if re.fullmatch(r"\w+\.py", span)}
    assert not named - {path.name for path in code}


def commands_in(page: str) -> Iterator[list[str]]:
    """The words after `clickstream`, of each time that a page names a command."""
    lines = [
        line for language in ("sh", "bash") for code in fences(page, language) for line in code.splitlines()
    ]
    for line in [*spans(page), *(line.partition("#")[0].strip() for line in lines)]:
        found = re.fullmatch(r"(?:\.venv/bin/)?clickstream (?!…)(.+)", line)
        if found:
            yield found[1].split()


@cache
def program() -> TyperGroup:
    command = typer.main.get_command(command_line)
    assert isinstance(command, TyperGroup)
    return command


def unknown_words(words: list[str]) -> list[str]:
    """What of a command line the program does not know.

    Alternatives have a slash between them, as in `clickstream stack up / down`; other words are values.
    """
    command: Any = program()
    group: TyperGroup | None = program()
    options = {"--help"}
    for word in words:
        if word.startswith("--"):
            if word.partition("=")[0] not in options:
                return [word]
            # What follows is its value or another option.
            group = None
        elif group and word != "/":
            if word not in group.commands:
                return [word]
            command = group.commands[word]
            options |= {option for parameter in command.params for option in parameter.opts}
            if isinstance(command, TyperGroup):
                group = command
            elif group is program():
                group = None
    return []


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_those_of_the_program(page: str):
    wrong = {" ".join(words): unknown for words in commands_in(page) if (unknown := unknown_words(words))}
    assert not wrong


@pytest.mark.parametrize(
    ("line", "unknown"),
    [
        ("stack up / down / status", []),
        ("stack up / sideways", ["sideways"]),
        ("sessions", ["sessions"]),
        ("stream --rebuild", []),
        ("stream --rebuilt", ["--rebuilt"]),
        ("replay --no-files day.jsonl", []),
    ],
)
def test_a_command_that_is_not_there_is_noticed(line: str, unknown: list[str]):
    assert unknown_words(line.split()) == unknown


def test_readme_names_every_command():
    named = {words[0] for words in commands_in("README.md")}
    # Two have pages of their own.
    assert set(program().commands) - named <= {"settings", "spark"}


@pytest.fixture(scope="module")
def constants(code: list[Path]) -> set[str]:
    """Names in capitals that the code has, which the pages name too."""
    return {name for path in code for name in assigned_in(path.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("page", PAGES)
def test_variables_are_settings(page: str, constants: set[str]):
    ours = {name.upper() for name in Settings.model_fields}
    named = {span.partition("=")[0] for span in spans(page)}
    named |= {
        line.partition("=")[0].strip()
        for code in fences(page, "sh")
        for line in code.splitlines()
        if "=" in line
    }
    variables = {name for name in named if VARIABLE.fullmatch(name.removesuffix("…"))}
    if page == "docs/extending.md":
        variables = {
            name for name in variables if not any(name in assigned_in(code) for _, code in examples())
        }
    known = ours | constants | OTHERS_VARIABLES
    if page == "docs/moving-over.md":
        known |= OLD_VARIABLES
    assert not variables - known


def test_old_variables_have_no_effect():
    assert not {name for name in OLD_VARIABLES if name.lower() in Settings.model_fields}


@pytest.mark.parametrize("page", PAGES)
def test_routes_are_those_of_the_api(page: str, routes: set[str]):
    if page == "docs/extending.md":
        routes = routes | {"/api/searches"}
    named = {
        found[1]
        for span in spans(page)
        if (found := ROUTE.fullmatch(span.partition("?")[0].partition(":")[0]))
    }
    assert not named - routes


def test_readme_or_the_tables_reference_names_every_route(routes: set[str]):
    named = {
        found[1]
        for page in ("README.md", "docs/tables.md")
        for span in spans(page)
        if (found := ROUTE.fullmatch(span.partition("?")[0]))
    }
    assert routes <= named


def diagram() -> tuple[dict[str, set[str]], set[tuple[str, str]]]:
    """The nodes of architecture.md's diagram by subgraph ("" is outside of all), and its solid arrows."""
    (code,) = fences("docs/architecture.md", "mermaid")
    nodes: dict[str, set[str]] = {"": set()}
    arrows: set[tuple[str, str]] = set()
    group = ""
    subgraphs = dict(re.findall(r'subgraph (\w+)\["(\w+)"\]', code))
    for line in map(str.strip, code.splitlines()[1:]):
        if opened := re.match(r"subgraph (\w+)", line):
            group = subgraphs[opened[1]]
            nodes[group] = set()
            continue
        if line == "end":
            group = ""
            continue
        # Text of arrows and labels out of the way first: it may hold anything.
        line = re.sub(r"\|.*?\||\[\[.*?\]\]|\[\(.*?\)\]|\[/.*?/\]", "", line)
        parts = [part.strip() for part in re.split(r"(-->|-\.->)", line) if part.strip()]
        ends = [[name.strip() for name in part.split("&")] for part in parts[::2]]
        for names in ends:
            nodes[group] |= set(names) - set(subgraphs)
        for start, arrow, end in zip(ends, parts[1::2], ends[1:], strict=False):
            if arrow == "-->":
                arrows |= {(a, b) for a in start for b in end}
    return nodes, arrows


def test_diagram_has_every_group_and_its_assets_there(graph: AssetGraph):
    """A table that nothing rests on need not be drawn, so that one is added without drawing it."""
    nodes, _ = diagram()
    groups: dict[str, set[str]] = {}
    for key in graph.get_all_asset_keys():
        groups.setdefault(str(graph.get(key).group_name), set()).add(key.to_user_string())
    outside = nodes.pop("")
    assert nodes.keys() == groups.keys()
    assert {name: drawn - groups[name] for name, drawn in nodes.items()} == {name: set() for name in groups}
    drawn = {name for names in nodes.values() for name in names}
    # What is only published rests on nothing that has to be understood.
    needed = {
        key.to_user_string()
        for key in graph.get_all_asset_keys()
        if {child.to_user_string() for child in graph.get(key).child_keys} - {"published_days"}
    }
    assert needed <= drawn
    assert outside - drawn == {*("api", "dagster", "elasticsearch", "postgres", "shop", "stream")}


def test_diagrams_arrows_are_dependencies(graph: AssetGraph):
    _, arrows = diagram()
    parents = {
        key.to_user_string(): {parent.to_user_string() for parent in graph.get(key).parent_keys}
        for key in graph.get_all_asset_keys()
    }
    assert not {(a, b) for a, b in arrows if a not in parents.get(b, ())}
    # Whoever is drawn and depends on something has an arrow that comes from one of those things.
    drawn = {name for names in diagram()[0].values() for name in names}
    assert {b for _, b in arrows} == {name for name, its in parents.items() if its and name in drawn}


def test_diagram_names_sensors_schedules_and_jobs_that_there_are(definitions: dg.Definitions):
    (code,) = fences("docs/architecture.md", "mermaid")
    repository = definitions.get_repository_def()
    there = {
        "sensor": {sensor.name for sensor in repository.sensor_defs},
        "schedule": {schedule.name for schedule in repository.schedule_defs},
        "job": set(repository.job_names),
    }
    for kind, names in there.items():
        assert set(re.findall(rf"{kind} (\w+)", code)) <= names
    assert set(re.findall(r"sensor (\w+)", code)) == there["sensor"]


def test_checks_that_architecture_names_are_there(graph: AssetGraph):
    named = set(re.findall(r"check `(\w+)`", text_of("docs/architecture.md")))
    assert named
    assert named <= {key.name for key in graph.asset_check_keys}


def test_architecture_defines_every_customer_segment():
    table = re.findall(
        r"^\| `(\w+)` \| ([\d to]+) \| ([\d to]+) \| (.+) \|$", text_of("docs/architecture.md"), re.M
    )
    assert [
        f"{name} (recency {recency}, value {value}): {meaning}" for name, recency, value, meaning in table
    ] == [segment.definition for segment in RFM_SEGMENTS]


def examples() -> list[tuple[str, str]]:
    """extending.md's code: where it goes, and the code."""
    found = [
        re.match(r"# (\S+\.py)\n(.*)", code, re.DOTALL) for code in fences("docs/extending.md", "python")
    ]
    return [(block[1], block[2]) for block in found if block]


Add = Callable[[str], ModuleType]


@pytest.fixture
def add(monkeypatch: pytest.MonkeyPatch) -> Add:
    """Run an example's block where it belongs: in a module of that name, or in one that is there."""
    blocks = dict(examples())

    def run(path: str) -> ModuleType:
        name = path.removesuffix(".py").replace("/", ".")
        code = compile(blocks[path], path, "exec", dont_inherit=True)
        if not (ROOT / path).exists():
            module = ModuleType(name)
            exec(code, vars(module))
            monkeypatch.setitem(sys.modules, name, module)
            parent, _, own = name.rpartition(".")
            monkeypatch.setattr(importlib.import_module(parent), own, module, raising=False)
            return module
        module = importlib.import_module(name)
        namespace = dict(vars(module))
        exec(code, namespace)
        for new in namespace.keys() - vars(module).keys():
            monkeypatch.setattr(module, new, namespace[new], raising=False)
        return module

    table = run("clickstream_assets/catalogue/reports.py")
    monkeypatch.setattr(catalogue, "SEARCH_QUERIES", table.SEARCH_QUERIES, raising=False)
    monkeypatch.setitem(catalogue.TABLES, "search_queries", table.SEARCH_QUERIES)
    return run


def test_every_example_is_looked_at():
    assert len(fences("docs/extending.md", "python")) == len(examples())
    assert {path for path, _ in examples()} == {
        "clickstream_assets/catalogue/reports.py",
        "clickstream_assets/analytics/searches.py",
        "clickstream_assets/defs/reports/assets.py",
        "clickstream_assets/api/tables.py",
        "clickstream_assets_tests/analytics/test_searches.py",
    }


def test_the_examples_function_passes_the_examples_test(add: Add, duckdb_engine: DuckDBEngine):
    add("clickstream_assets/analytics/searches.py")
    test = add("clickstream_assets_tests/analytics/test_searches.py")
    test.test_queries_are_counted_each_day_for_itself(duckdb_engine)


def test_the_examples_asset_is_one_of_the_reports(add: Add, definitions: dg.Definitions):
    add("clickstream_assets/analytics/searches.py")
    asset = add("clickstream_assets/defs/reports/assets.py").search_queries
    checks = table_checks([asset])
    extended = dg.Definitions.merge(definitions, dg.Definitions(assets=[asset], asset_checks=checks))
    graph = extended.resolve_asset_graph()
    key = dg.AssetKey("search_queries")
    assert graph.get(key).parent_keys == {dg.AssetKey("events"), dg.AssetKey("sessions")}
    assert key in extended.resolve_job_def("refresh").asset_layer.executable_asset_keys
    assert {found.name for found in graph.asset_check_keys if found.asset_key == key} == {
        "keys_are_unique",
        "values_are_allowed",
    }


def test_the_examples_route_lists_the_examples_columns(add: Add):
    module = add("clickstream_assets/api/tables.py")
    api = APIFlask(__name__)
    api.register_blueprint(module.searches)
    path: dict[str, Any] = api.spec["paths"]["/api/searches"]["get"]
    assert {parameter["name"] for parameter in path["parameters"]} == {
        *("limit", "offset", "format", "since", "until", "date")
    }
    row = api.spec["components"]["schemas"]["SearchQueryDay"]["properties"]
    assert list(row) == catalogue.SEARCH_QUERIES.column_names
