import json
import logging
import re
import subprocess
import sys
from datetime import datetime
from time import perf_counter
from typing import Any
from urllib.parse import quote

import pytest
import schemathesis
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings

from clickstream_assets.api.collector_routes import ROUTES
from clickstream_assets.settings import Settings
from clickstream_assets_tests.api.conftest import LISTS, PARAMETERS, PATHS, POSTED


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        *((path, schemathesis.GenerationMode.POSITIVE) for path in PATHS),
        # Of an address alone, no text is wrong.
        *(
            (path, schemathesis.GenerationMode.NEGATIVE)
            for path in PATHS
            if PARAMETERS[path] - set(re.findall(r"{(\w+)}", path))
        ),
    ],
)
def test_every_answer_is_as_the_openapi_document_says(
    client: FlaskClient, path: str, mode: schemathesis.GenerationMode
) -> None:
    operation = schemathesis.openapi.from_wsgi("/openapi.json", client.application)[path]["GET"]

    @given(case=operation.as_strategy(generation_mode=mode))
    @hypothesis_settings(
        max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    def ask(case: schemathesis.Case) -> None:
        if mode is schemathesis.GenerationMode.POSITIVE:
            put_in_order(case.query)
        case.call_and_validate()

    ask()


@pytest.mark.parametrize("text", ["%s", "100 %", "%Y-%m", "%(a)s", "'; --", "\\"])
def test_no_text_of_a_request_is_read_as_sql(client: FlaskClient, text: str) -> None:
    document = client.get("/openapi.json").json
    for path in PATHS:
        free = [
            parameter
            for parameter in document["paths"][path]["get"]["parameters"]
            if parameter["schema"].get("type") == "string"
            and not {"enum", "format"} & parameter["schema"].keys()
        ]
        filled = path
        for parameter in free:
            filled = filled.replace(f"{{{parameter['name']}}}", quote(text, safe=""))
        for parameter in [*free, None]:
            query = {parameter["name"]: text} if parameter and parameter["in"] == "query" else {}
            assert client.get(filled, query_string=query).status_code < 500, (filled, query)


def put_in_order(query: dict[str, Any]) -> None:
    """Let a range begin before its end, which OpenAPI has no words for."""
    if {"since", "until"} <= query.keys():
        bounds = (query["since"], query["until"])
        query["since"], query["until"] = sorted(bounds, key=lambda text: datetime.fromisoformat(text.upper()))
    if {"price_min", "price_max"} <= query.keys():
        query["price_min"], query["price_max"] = sorted((query["price_min"], query["price_max"]), key=float)


@pytest.mark.parametrize(
    ("path", "named", "forms"),
    [
        ("/api/products/{product_id}", {"product_id": "p1"}, ["json", "csv"]),
        ("/api/segments/{user_id}", {"user_id": "u3"}, ["json", "csv"]),
        ("/api/reports/{date}", {"date": "2024-05-08"}, ["json", "text"]),
        ("/api/reports/{date}", {"date": "2024-05-09"}, ["json", "text"]),
    ],
)
def test_answer_about_what_is_known_is_as_the_openapi_document_says(
    client: FlaskClient, path: str, named: dict[str, str], forms: list[str]
) -> None:
    operation = schemathesis.openapi.from_wsgi("/openapi.json", client.application)[path]["GET"]
    for form in forms:
        answer = operation.Case(path_parameters=named, query={"format": form}).call_and_validate()
        assert answer.status_code == 200


def offered(document: dict[str, Any], path: str) -> set[str]:
    """Return the media types of the operation's answer."""
    return set(document["paths"][path]["get"]["responses"]["200"]["content"])


def test_openapi_document_describes_the_routes(client: FlaskClient) -> None:
    document = client.get("/openapi.json").json
    assert set(document["paths"]) == {*PATHS, *POSTED, *ROUTES}
    assert [path for path in PATHS if "text/csv" in offered(document, path)] == LISTS
    assert offered(document, "/api/reports/{date}") == {"application/json", "text/plain"}
    for path in document["paths"].values():
        for operation in path.values():
            assert all(parameter["description"] for parameter in operation["parameters"])
    tags = [tag["name"] for tag in document["tags"]]
    assert len(tags) == len(set(tags))


def test_unknown_path_is_a_problem_document(client: FlaskClient) -> None:
    answer = client.get("/nowhere")
    assert (answer.status_code, answer.content_type) == (404, "application/problem+json")
    assert answer.json["code"] == "not_found"


def test_other_method_is_a_problem_document_that_names_the_allowed_ones(client: FlaskClient) -> None:
    answer = client.post("/sessions")
    assert (answer.status_code, answer.json["code"]) == (405, "method_not_allowed")
    assert "GET" in answer.headers["Allow"]


def test_access_log_has_one_json_line_without_the_user(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "clickstream_assets.api.access"):
        client.get("/api/recommend/somebody?exclude=secret")
    [record] = caplog.records
    line = json.loads(record.getMessage())
    assert line["method"] == "GET"
    assert line["route"] == "/api/recommend/<any_text:user_id>"
    assert line["status"] == 200
    assert line["milliseconds"] > 0
    assert "somebody" not in record.getMessage()
    assert "secret" not in record.getMessage()


def test_access_log_times_a_page_with_all_that_it_asks_for(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    client.get("/trends")
    with caplog.at_level(logging.INFO, "clickstream_assets.api.access"):
        began = perf_counter()
        client.get("/trends")
        milliseconds = 1000 * (perf_counter() - began)
    [record] = caplog.records
    line = json.loads(record.getMessage())
    assert line["route"] == "/trends"
    assert line["milliseconds"] > milliseconds / 2


def test_application_loads_neither_engine_nor_dagster(settings: Settings) -> None:
    code = (
        "import sys; from clickstream_assets.api import app, server;"
        "print(sorted({'dagster', 'pyspark', 'sqlframe', 'duckdb', 'sqlalchemy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
