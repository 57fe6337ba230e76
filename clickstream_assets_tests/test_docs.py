"""The pages, against the code: what they name is there, and what they show works."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import pytest
import typer
from typer.core import TyperGroup

from clickstream_assets.api.app import create_app
from clickstream_assets.api.collector_routes import ROUTES
from clickstream_assets.api.pages.rendering import PAGES as SHOP_PAGES
from clickstream_assets.catalogue import EVENT_FIELDS, EVENT_TYPES
from clickstream_assets.catalogue.rfm import RFM_SEGMENTS
from clickstream_assets.commands.app import app as command_line
from clickstream_assets.definitions import defs
from clickstream_assets.ingest.fields import Rejection, ValidationRules
from clickstream_assets.ingest.parsing import parse_record, read_payload
from clickstream_assets.local.stack import Stack
from clickstream_assets.settings import EventDialect, Settings, secret_names
from clickstream_assets_tests.dagster_private import AssetGraph
from clickstream_assets_tests.databases import environment

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/*.md"))
)

# Variables that are not ours: Dagster's, Spark's, Hadoop's, delta-rs's, PostgreSQL's.
OTHERS_VARIABLES = {
    "AWS_ACCESS_KEY_ID",
    "AWS_ALLOW_HTTP",
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "DAGSTER_HOME",
    "HADOOP_CONF_DIR",
    "JAVA_TOOL_OPTIONS",
    "PGSSLMODE",
    "PGSSLROOTCERT",
    "PYSPARK_PYTHON",
    "SPARK_MASTER_OPTS",
    "SPARK_WORKER_OPTS",
    # The Compose file's, and of the proxy before Dagster.
    "BACKUPS",
    "CA_FILE",
    "KAFKA_RETENTION_HOURS",
    "WEBSERVER_LOGIN",
    "WEBSERVER_PASSWORD",
    "WEBSERVER_USER",
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
ROUTE = re.compile(
    r"(?:(?:GET|POST) )?(/(?:api|v1|batch|health|sessions|real-time-events|metrics|openapi\.json)\b[^\s?`]*)"
)


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
    of_api = [rule.rule for rule in rules if not rule.endpoint.startswith("pages.")]
    return {re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule) for rule in of_api} | set(ROUTES)


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
    new = {step.path for step in steps()}
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
        elif group and word != "/" and word not in _arguments(command):
            if word not in group.commands:
                return [word]
            command = group.commands[word]
            options |= {option for parameter in command.params for option in parameter.opts}
            if isinstance(command, TyperGroup):
                group = command
            elif group is program():
                group = None
    return []


def _arguments(command: Any) -> set[str]:
    """The words that stand for a command's arguments, such as VERSION."""
    return {
        each.metavar or each.name.upper() for each in command.params if each.param_type_name == "argument"
    }


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_those_of_the_program(page: str):
    wrong = {" ".join(words): unknown for words in commands_in(page) if (unknown := unknown_words(words))}
    assert not wrong


@pytest.mark.parametrize(
    ("line", "unknown"),
    [
        ("stack up / down / status", []),
        ("stack up / sideways", ["sideways"]),
        ("models list / publish VERSION", []),
        ("models list VERSION", ["VERSION"]),
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
    ours |= {f"{name.upper()}_FILE" for name in secret_names(Settings)}
    named = {span.partition("=")[0] for span in spans(page)}
    named |= {
        line.partition("=")[0].strip()
        for code in fences(page, "sh")
        for line in code.splitlines()
        if "=" in line
    }
    variables = {name for name in named if VARIABLE.fullmatch(name.removesuffix("…"))}
    if page == "docs/extending.md":
        added = "\n".join(line for step in steps() for line in step.lines)
        variables = {name for name in variables if name not in added and name.lower() not in added}
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


def test_readme_or_the_page_of_tables_or_of_the_collector_names_every_route(routes: set[str]):
    named = {
        found[1]
        for page in ("README.md", "docs/tables.md", "docs/collector.md")
        for span in spans(page)
        if (found := ROUTE.fullmatch(span.partition("?")[0]))
    }
    assert routes <= named


def test_readme_names_every_page():
    assert {f"*{name}*" for name in SHOP_PAGES.values() if name != "API"} <= set(
        re.findall(r"\*\w+\*", text_of("README.md"))
    )


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
    assert outside - drawn == {*("api", "dagster", "elasticsearch", "people", "postgres", "shop", "stream")}


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


class Step(NamedTuple):
    """A step of extending.md: a new file, or a change of one that is there."""

    path: str
    is_new: bool
    lines: list[str]

    def apply(self, root: Path) -> None:
        """Make it in a copy of the project."""
        path = root / self.path
        if self.is_new:
            assert not path.exists(), path
            path.write_text("\n".join(self.lines) + "\n")
            return
        before, after = (
            "".join(f"{line[1:]}\n" for line in self.lines if not line.startswith(other)) for other in "+-"
        )
        text = path.read_text()
        assert text.count(before) == 1, f"{self.path} has this {text.count(before)} times:\n{before}"
        path.write_text(text.replace(before, after))


@cache
def tutorials() -> dict[str, str]:
    """The sections of extending.md that have steps, by their titles."""
    sections = re.split(r"^## (.*)\n", text_of("docs/extending.md"), flags=re.MULTILINE)[1:]
    return {title: text for title, text in zip(sections[::2], sections[1::2], strict=True) if "```" in text}


def steps_of(tutorial: str) -> list[Step]:
    found = []
    for _, language, code in FENCE.findall(tutorial):
        if language != "sh":
            header, *lines = code.splitlines()
            found.append(Step(header.lstrip("@# "), language == "python", lines))
    return found


@cache
def steps() -> list[Step]:
    return [step for tutorial in tutorials().values() for step in steps_of(tutorial)]


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with all steps made."""
    root = tmp_path_factory.mktemp("extended")
    for folder in ("clickstream_assets", "clickstream_assets_tests", "deploy", "docs", "helm"):
        shutil.copytree(ROOT / folder, root / folder)
    for file in ("pyproject.toml", "docker-compose.yml"):
        shutil.copy(ROOT / file, root)
    for step in steps():
        step.apply(root)
    return root


def run_commands(root: Path, kind: str, env: Mapping[str, str]) -> None:
    """Run the page's commands in the copy, and those of its tests that are of a kind, all of them at once."""
    lines = [line for code in fences("docs/extending.md", "sh") for line in code.splitlines()]
    tests = [line.removeprefix("pytest ") for line in lines if line.startswith("pytest ")]
    commands = [line for line in dict.fromkeys(lines) if not line.startswith("pytest ")]
    if kind != "server":
        commands = [line for line in commands if "--migration" not in line]
    own = {name: value for name, value in env.items() if not name.startswith("PYTEST_")}
    own |= {"PYTHONPATH": str(root), "PATH": f"{Path(sys.executable).parent}:{own['PATH']}"}
    done = subprocess.run(
        ["sh", "-e", "-c", "\n".join([*commands, f"pytest -q -m '{kind}' {' '.join(tests)}"])],
        capture_output=True,
        text=True,
        cwd=root,
        env=own,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_tutorials_work_without_a_server(extended: Path):
    run_commands(extended, "not server and not spark", os.environ)
    assert "is_bounce" in (extended / "docs" / "tables.md").read_text()


@pytest.mark.long
def test_the_tutorials_work_with_servers(extended: Path, stack: Stack, servers: Settings):
    run_commands(extended, "server", environment(servers) | {"CLICKSTREAM_TEST_HOME": str(stack.home)})
    # The copy has all the changes from the start, so the first one that is written has them all.
    (written,) = extended.glob("**/migrations/versions/*_bounces_of_sessions.py")
    assert "is_bounce" in written.read_text()
    assert "search_queries" in written.read_text()


def test_the_tutorials_count_the_files_that_they_edit():
    files = [{step.path for step in steps_of(tutorial)} for tutorial in tutorials().values()]
    for number in (4, 5):
        # The same table as in the section before.
        files[number] |= files[number - 1]
    counted = re.findall(r"^\| ([^|]+) \| (\d) \|", text_of("docs/extending.md"), re.MULTILINE)
    # A kind of file is described there, and made by no tutorial.
    assert [len(each) for each in files] == [int(n) for what, n in counted if what != "a kind of file"]


def _events_in(text: str) -> Iterator[dict[str, Any]]:
    """Return the JSON objects that follow each other in a text."""
    decoder, start = json.JSONDecoder(), 0
    while text[start:].strip():
        start += len(text[start:]) - len(text[start:].lstrip())
        event, start = decoder.raw_decode(text, start)
        yield event


def test_every_example_of_a_tracker_is_an_event_in_the_dialect_of_its_topic():
    (named,) = re.findall(r"^echo 'KAFKA_TOPIC=(.*)'", text_of("docs/trackers.md"), re.MULTILINE)
    settings = Settings(_env_file=None, kafka_topic=named)
    sections = re.split(r"^## ", text_of("docs/trackers.md"), flags=re.MULTILINE)[2:]
    dialects = set()
    for section in sections:
        (example,) = [text for _, language, text in FENCE.findall(section) if language == "json"]
        topic = next((topic for topic in settings.topics if f"`{topic}`" in section), settings.first_topic)
        rules = ValidationRules.of(settings).of_topic(topic)
        event: Any
        (event,) = parse_record(example.encode(), int(time.time()) * 1_000_000, rules)
        assert not isinstance(event, Rejection), (topic, event.args)
        assert (event.event_type, event.product_id, event.field_problems) == ("view", "P-1", None)
        _, told = read_payload(example.encode(), EventDialect.AUTO)
        assert settings.topics[topic] in (None, told)
        dialects.add(told)
    assert dialects == set(EventDialect) - {EventDialect.AUTO}


def test_every_example_of_an_event_is_one_without_a_problem():
    page = (ROOT / "docs" / "events.md").read_text()
    examples = [
        event for _, language, text in FENCE.findall(page) if language == "json" for event in _events_in(text)
    ]
    of_fields = dict(
        re.findall(r"^\| `(\w+)` \|[^|]*\| `([^`]+)` \|", page.partition("## Types")[0], re.MULTILINE)
    )
    assert of_fields.keys() == {"event_id", "event_type", "timestamp", "properties"} | {
        c.name for c in EVENT_FIELDS
    }
    whole = {name: json.loads(example) for name, example in of_fields.items()}
    rules = ValidationRules.of(Settings(_env_file=None))
    found: list[Any] = [
        one
        for event in [*examples, whole]
        for one in parse_record(json.dumps(event).encode(), int(time.time()) * 1_000_000, rules)
    ]
    assert [one for one in found if isinstance(one, Rejection) or one.field_problems] == []
    # One of each type; and each field has a value.
    assert {one.event_type for one in found} >= set(EVENT_TYPES) - {"view", "click", "remove_from_cart"}
    assert None not in [value for name, value in found[-1]._asdict().items() if name != "field_problems"]
