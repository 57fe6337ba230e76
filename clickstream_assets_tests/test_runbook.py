"""The runbook, against the code: it has all that wakes somebody, and what it tells them to type exists."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import pytest

from clickstream_assets.silences import Kind
from clickstream_assets.stores.elasticsearch import ElasticsearchProblem
from clickstream_assets.stores.kafka.delivery import KafkaProblem
from clickstream_assets.stores.postgres.connection import PostgresProblem
from clickstream_assets_tests.databases import fresh_database, query
from clickstream_assets_tests.deploy.files import SERVICES
from clickstream_assets_tests.deploy.monitoring import alert_rules
from clickstream_assets_tests.test_docs import ROOT, program, text_of
from clickstream_assets_tests.test_errors import BY_KIND, NOT_RETRYABLE, RETRYABLE

PAGE = "docs/runbook.md"
POINTS = ("Means", "Look", "Do", "Over when")
# Whoever gets these sees what to do without a page: the client of an HTTP request.
WITHOUT_ENTRY = {"ApiError"}
# Their messages begin with one of these, which has an entry.
BY_PROBLEM = {"PostgresError": PostgresProblem, "ElasticsearchError": ElasticsearchProblem}
# Options of Docker Compose's own, of the commands that the page names; True where a value follows.
COMPOSE: dict[str, dict[str, bool]] = {
    "exec": {},
    "logs": {"--since": True, "--tail": True},
    "ps": {"--all": False},
    "restart": {},
    "run": {"--rm": False},
    "stop": {},
    "top": {},
    "up": {"--detach": False},
}


class Entry(NamedTuple):
    title: str
    text: str

    @property
    def names(self) -> set[str]:
        """What it is found by: the words of its heading, and what the messages say."""
        return {*re.split(r", | and ", self.title), *re.findall(r"`([^`]+)`", self.text)}

    @property
    def said(self) -> list[str]:
        """Parts of messages."""
        found = re.search(r"^- \*\*Says\*\*: (.*?)(?=^- \*\*|\Z)", self.text, re.MULTILINE | re.DOTALL)
        return re.findall(r"`([^`]+)`", " ".join(found[1].split())) if found else []


@cache
def entries() -> list[Entry]:
    parts = re.split(r"^#{2,3} (.*)\n", text_of(PAGE), flags=re.MULTILINE)[1:]
    found = [Entry(title, text) for title, text in zip(parts[::2], parts[1::2], strict=True)]
    return [entry for entry in found if "**Means**" in entry.text]


def entry_of(title: str) -> Entry:
    (found,) = [entry for entry in entries() if entry.title == title]
    return found


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.title)
def test_an_entry_says_what_it_means_how_to_look_what_to_do_and_when_it_is_over(entry: Entry):
    points = re.findall(r"\*\*(Says|Means|Look|Do|Over when)\*\*", entry.text)
    assert sorted(point for point in points if point != "Says") == sorted(POINTS)


def test_every_alert_has_an_entry_that_it_leads_to():
    for rule in alert_rules():
        if "alert" in rule:
            assert entry_of(rule["alert"])
            assert rule["annotations"]["runbook"] == f"{PAGE}#{rule['alert'].lower()}"


def test_every_kind_of_incident_has_an_entry():
    assert all(entry_of(kind) for kind in Kind)


def test_every_error_has_an_entry():
    named = set().union(*(entry.names for entry in entries()))
    errors = (RETRYABLE | NOT_RETRYABLE | BY_KIND) - WITHOUT_ENTRY - BY_PROBLEM.keys()
    assert not errors - named


@pytest.mark.parametrize("problems", [*BY_PROBLEM.values(), KafkaProblem], ids=lambda kind: kind.__name__)
def test_every_problem_of_a_server_has_an_entry(problems: Any):
    said = {words for entry in entries() for words in entry.said}
    assert not {str(problem) for problem in problems} - said


@cache
def messages() -> set[str]:
    """The texts in the code, with … where a value stands, and its classes."""
    texts: set[str] = set()
    for path in (ROOT / "clickstream_assets").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Constant(value=str(text)):
                    texts.add(text)
                case ast.JoinedStr():
                    texts.add(
                        "".join(
                            str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values
                        )
                    )
                case ast.ClassDef():
                    texts.add(node.name)
    return texts


@pytest.mark.parametrize("entry", [entry for entry in entries() if entry.said], ids=lambda entry: entry.title)
def test_what_messages_say_is_in_the_code(entry: Entry):
    missing = [words for words in entry.said if not any(words in text for text in messages())]
    assert not missing


def command_lines() -> Iterator[str]:
    """The commands that the page names, of pipes each part."""
    code = re.findall(r"^ *```sh\n(.*?)^ *```", text_of(PAGE), re.MULTILINE | re.DOTALL)
    lines = [line.strip() for block in code for line in block.splitlines()]
    prose = re.sub(r"^ *```sh\n.*?^ *```", "", text_of(PAGE), flags=re.MULTILINE | re.DOTALL)
    spans = [" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose)]
    for line in [*lines, *spans]:
        if re.match(r"(clickstream|docker|kubectl|make|curl|sh) ", line):
            yield line


def parse_clickstream(words: list[str]) -> None:
    """Parse the words after `clickstream` as the command line does, and run nothing."""
    command: Any = program()
    context = None
    name, rest = "clickstream", words
    while True:
        context = command.make_context(name, list(rest), parent=context)
        if not hasattr(command, "commands"):
            return
        name, command, rest = command.resolve_command(context, rest)


def parse_compose(words: list[str]) -> list[str]:
    """Parse the words after `docker compose`; return the command that is carried out in the service's container."""
    command, *rest = words
    options = COMPOSE[command]
    while rest and rest[0].startswith("--"):
        option = rest.pop(0)
        assert option in options, option
        if options[option]:
            rest.pop(0)
    if command in ("exec", "run"):
        assert rest[0] in SERVICES, rest
        return rest[1:]
    assert set(rest) <= SERVICES.keys(), rest
    return []


@pytest.mark.parametrize("line", dict.fromkeys(command_lines()))
def test_a_command_of_the_page_exists(line: str):
    words = shlex.split(line.partition(" | ")[0])
    if words[:2] == ["docker", "compose"]:
        words = parse_compose(words[2:])
    elif words[0] == "kubectl":
        assert re.fullmatch(r"(exec|logs|rollout)", words[1])
        words = words[words.index("--") + 1 :] if "--" in words else []
    if words[:1] == ["clickstream"] and words[1:] != ["…"]:
        parse_clickstream(words[1:])
    if words[:1] == ["make"]:
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_a_command_that_is_not_there_is_noticed():
    for line in ("stream --rebuilt", "stack sideways", "report", "rejected replay --rule"):
        with pytest.raises(Exception, match=r"No such|Missing|requires"):
            parse_clickstream(line.split())
    with pytest.raises(AssertionError):
        parse_compose(["logs", "--until", "1m", "api"])
    with pytest.raises(AssertionError):
        parse_compose(["restart", "spark"])


def test_a_question_to_postgresql_is_one_that_it_understands(postgres):
    statements = [
        words[words.index("--command") + 1]
        for words in map(shlex.split, command_lines())
        if "--command" in words
    ]
    assert len(statements) >= 5
    with fresh_database(postgres) as settings:
        for statement in statements:
            assert query(settings, f"EXPLAIN {statement}")


def test_links_within_the_page_lead_to_a_heading():
    headings = re.findall(r"^#+ (.*)$", text_of(PAGE), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    assert not set(re.findall(r"\]\(#([^)]+)\)", text_of(PAGE))) - anchors


def test_the_page_is_led_to():
    for page in ("README.md", "docs/index.md", "docs/deployment.md"):
        assert "runbook.md" in text_of(page), page
    assert "runbook.md" in (ROOT / "mkdocs.yml").read_text()
