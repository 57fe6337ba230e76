"""Who may see and send what: keys, logins, limits and headers."""

from __future__ import annotations

import re
import subprocess
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import pytest
import requests
import schemathesis
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from werkzeug.test import TestResponse

from clickstream_assets.api.access import is_loopback
from clickstream_assets.api.app import create_app
from clickstream_assets.api.collector_routes import ROUTES
from clickstream_assets.api.database import EXTENSION
from clickstream_assets.api.scopes import needs, refuse_unstated
from clickstream_assets.keys import Scope, parse_keys
from clickstream_assets.settings import Settings
from clickstream_assets_tests.api.api_keys import entry
from clickstream_assets_tests.api.conftest import PATHS, POSTED
from clickstream_assets_tests.api.served import COMMAND, served
from clickstream_assets_tests.api.shop import DAY, DAY_BEFORE
from clickstream_assets_tests.databases import environment, free_port, with_settings

READER = "cs_reader"
NEW_READER = "cs_reader_of_tomorrow"
MARKETER = "cs_marketer"
COLLECTOR = "cs_shop"
ADMIN = "cs_admin"
KEYS = ",".join(
    [
        entry(READER, Scope.READ, name="analyst"),
        entry(NEW_READER, Scope.READ, name="analyst"),
        entry(MARKETER, Scope.PERSONAL, name="marketer"),
        entry(COLLECTOR, Scope.COLLECT, name="shop"),
        entry(ADMIN, Scope.ADMIN, name="ops"),
    ]
)
HASHES = [key.digest.hex() for key in parse_keys(KEYS)]
# All else needs a key, also what is added later: whoever adds a route that needs none says so here.
OPEN = {"/health/live", "/health/ready", "/static/<path:name>", "/login", "/logout"}
# Whoever adds a route that is about one person, or lists persons, says so here too.
PERSONAL = {
    *("/sessions", "/api/carts", "/real-time-events", "/api/rejected/samples"),
    *(
        "/api/recommend",
        "/api/recommend/<any_text:user_id>",
        "/api/buy-again",
        "/api/buy-again/<any_text:user_id>",
    ),
    *("/api/predictions", "/api/predictions/<any_text:person_id>", "/api/persons/<any_text:person_id>"),
    "/api/segments/<any_text:user_id>",
}
HERE = {"Origin": "http://localhost"}
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
_ADDRESSES = count(1)


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def basic(user: str, password: str = "") -> dict[str, str]:
    return {"Authorization": f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"}


def new_address() -> dict[str, str]:
    """A client that has not sent a wrong key yet."""
    number = next(_ADDRESSES)
    return {"REMOTE_ADDR": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"}


@contextmanager
def client_of(settings: Settings, **changes: Any) -> Iterator[FlaskClient]:
    app = create_app(with_settings(settings, **{"api_keys": KEYS, **changes}))
    client = app.test_client()
    client.environ_base.update(new_address())
    yield client
    app.extensions[EXTENSION].close()


@pytest.fixture(scope="module")
def nowhere() -> Settings:
    """No servers: for what is answered before they are asked, and 503 for what is let in."""
    return Settings(
        _env_file=None, postgres_port=free_port(), elasticsearch_url=f"http://127.0.0.1:{free_port()}"
    )


@pytest.fixture
def guarded(nowhere: Settings) -> Iterator[FlaskClient]:
    with client_of(nowhere) as client:
        yield client


def refused(answer: TestResponse) -> tuple[int, str]:
    assert answer.content_type == "application/problem+json"
    assert answer.json["status"] == answer.status_code
    return answer.status_code, answer.json["code"]


def routes(client: FlaskClient) -> list[tuple[str, str, str]]:
    """Return the rule, an address and a method of all that there is."""
    return [
        (rule.rule, re.sub("<[^>]*>", "x", rule.rule), method)
        for rule in client.application.url_map.iter_rules()
        for method in sorted(rule.methods)
    ]


def log_in(client: FlaskClient, secret: str = READER, **form: str) -> TestResponse:
    return client.post("/login", data={"key": secret, **form}, headers=HERE)


def cookie_of(answer: TestResponse) -> str:
    [cookie] = answer.headers.getlist("Set-Cookie")
    return cookie


# --- Keys -------------------------------------------------------------------------------------------------------------


def test_every_route_but_the_open_ones_needs_a_key_with_its_scope(settings: Settings) -> None:
    with client_of(settings) as client:
        found = routes(client)
        assert {rule for rule, _, _ in found} > OPEN | PERSONAL
        assert {"/", "/metrics", "/openapi.json", "/sessions", "/real-time-events"} < {
            rule for rule, _, _ in found
        }
        for rule, address, method in found:
            answers = {
                secret: client.open(
                    address,
                    method=method,
                    headers=bearer(secret) if secret else {},
                    environ_overrides=new_address(),
                )
                for secret in ("", "cs_wrong", COLLECTOR, READER, MARKETER, ADMIN)
            }
            statuses = {secret: answer.status_code for secret, answer in answers.items()}
            if rule in OPEN:
                assert 401 not in statuses.values(), rule
                continue
            assert [statuses[secret] for secret in ("", "cs_wrong", COLLECTOR)] == [401, 401, 403], rule
            scope, refused_keys, let_in = (
                ("personal", [COLLECTOR, READER], [MARKETER, ADMIN])
                if rule in PERSONAL
                else ("read", [COLLECTOR], [READER, MARKETER, ADMIN])
            )
            assert not {statuses[secret] for secret in let_in} & {401, 403, 429, 500, 503}, rule
            for answer in answers.values():
                assert answer.headers["Cache-Control"] == "no-store", rule
            if method != "HEAD":
                assert refused(answers[""])[1] == "no_key"
                assert refused(answers["cs_wrong"])[1] == "unknown_key"
                for secret in refused_keys:
                    assert refused(answers[secret]) == (403, "scope_missing"), rule
                    assert answers[secret].json["scope"] == scope
                    assert f"it lacks the scope {scope}." in answers[secret].json["detail"]
            realm = 'Bearer realm="clickstream"'
            assert answers[""].headers["WWW-Authenticate"] == realm
            assert answers["cs_wrong"].headers["WWW-Authenticate"] == f'{realm}, error="invalid_token"'
            lacking = f'{realm}, error="insufficient_scope", scope="{scope}"'
            for secret in refused_keys:
                assert answers[secret].headers["WWW-Authenticate"] == lacking


@pytest.mark.parametrize(
    "asked", ["segment=buyer", "anonymous_id=a1", "segment=", "limit=1&segment=buyer&format=csv"]
)
def test_who_is_in_a_segment_needs_more_than_how_many_are(settings: Settings, asked: str) -> None:
    with client_of(settings) as client:
        assert client.get("/api/segments", headers=bearer(READER)).status_code == 200
        assert refused(client.get(f"/api/segments?{asked}", headers=bearer(READER))) == (403, "scope_missing")
        answer = client.get(f"/api/segments?{asked}", headers=bearer(MARKETER))
        assert answer.status_code == (422 if asked == "segment=" else 200)


def test_a_page_tells_who_persons_are_to_keys_with_the_scope_personal_alone(settings: Settings) -> None:
    data = f"/data?since={DAY_BEFORE}&until={DAY}"
    pages = ("/", "/customers", data, "/recommendations?person=u1")
    with client_of(settings) as client:

        def shown(page: str, secret: str) -> str:
            answer = client.get(page, headers=bearer(secret) | HTML)
            assert answer.status_code == 200
            # Nor is it a fault that something is left out.
            assert 'role="alert"' not in answer.text, page
            return answer.text

        persons = {
            row["user_id"]
            for rows in ("/sessions", "/api/carts", "/api/predictions")
            for row in client.get(f"{rows}?limit=1000", headers=bearer(MARKETER)).json[
                rows.rpartition("/")[2]
            ]
        }
        assert {"u0", "u1"} <= persons
        named = re.compile("|".join(rf"\b{re.escape(person)}\b" for person in persons))
        rules = [
            address
            for rule, address, method in routes(client)
            if method == "GET" and rule not in OPEN | PERSONAL
        ]
        for address in (*rules, *pages):
            assert not named.search(client.get(address, headers=bearer(READER) | HTML).text), address
        assert {page for page in pages if named.search(shown(page, MARKETER))} >= {
            "/customers",
            "/recommendations?person=u1",
        }
        customers = shown("/customers", READER)
        assert customers.count("it lacks the scope personal") == 2
        assert "segment=champions" not in customers
        assert "/api/carts" not in customers
        assert "it lacks the scope personal" in shown("/", READER)
        assert "keys with the scope <code>personal</code>" in shown(data, READER)
        assert "keys with the scope" not in shown(data, MARKETER)
        asked = shown("/recommendations?person=u1", READER)
        assert "keys with the scope <code>personal</code>" in asked
        assert 'name="person"' not in asked
        assert 'name="person"' in shown("/recommendations?person=u1", MARKETER)


def test_an_application_with_a_route_that_states_no_scope_does_not_start() -> None:
    def forgotten() -> str:
        return ""

    with pytest.raises(TypeError, match=r"^shop\.forgotten, shop\.also: which scope does it need\? .*@needs"):
        refuse_unstated(
            [("shop.forgotten", forgotten), ("shop.also", lambda: ""), ("a.b", needs(None)(lambda: ""))]
        )


def test_a_key_is_replaced_by_another_of_its_name_without_anybody_being_refused(nowhere: Settings) -> None:
    old, new = (entry(secret, Scope.READ, name="analyst") for secret in (READER, NEW_READER))
    answers = {}
    for keys in (old, f"{old},{new}", new):
        with client_of(nowhere, api_keys=keys) as client:
            answers[keys] = [
                client.get("/openapi.json", headers=bearer(secret)).status_code
                for secret in (READER, NEW_READER)
            ]
    assert list(answers.values()) == [[200, 401], [200, 200], [401, 200]]


def test_what_does_not_exist_needs_a_key_too(guarded: FlaskClient) -> None:
    assert refused(guarded.get("/nowhere")) == (401, "no_key")
    assert refused(guarded.get("/nowhere", headers=bearer(READER))) == (404, "not_found")
    assert refused(guarded.post("/sessions")) == (401, "no_key")


def test_without_keys_all_may_read(nowhere: Settings) -> None:
    with client_of(nowhere, api_keys=None) as client:
        answer = client.get("/openapi.json")
        assert answer.status_code == 200
        assert "Cache-Control" not in answer.headers
        assert client.get("/trends").status_code == 503
        assert client.get("/login?next=/trends").headers["Location"] == "/trends"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (bearer(READER), 200),
        ({"Authorization": f"bearer  {READER} "}, 200),
        (basic(READER), 200),
        (basic("analyst", READER), 200),
        (basic("", READER), 200),
        (bearer(NEW_READER), 200),
        (bearer(READER.upper()), 401),
        (bearer(f"{READER}x"), 401),
        (bearer(READER[:-1]), 401),
        (bearer(HASHES[0]), 401),
        (bearer(f"{READER},{ADMIN}"), 401),
        (basic("analyst", "wrong"), 401),
        (bearer(""), 401),
        ({"Authorization": f"Basic {READER}"}, 401),
        ({"Authorization": "Basic ü"}, 401),
        ({"Authorization": f"Digest {READER}"}, 401),
        ({"Authorization": READER}, 401),
        ({"Write-Key": READER}, 401),
    ],
)
def test_a_key_comes_as_bearer_or_in_basic_authentication(
    guarded: FlaskClient, headers: dict[str, str], status: int
) -> None:
    assert guarded.get("/openapi.json", headers=headers).status_code == status


def test_a_key_in_the_address_opens_nothing_that_is_read(guarded: FlaskClient) -> None:
    assert refused(guarded.get(f"/openapi.json?write_key={READER}&key={READER}")) == (401, "no_key")


def test_health_is_open_and_metrics_are_where_the_setting_says_so(settings: Settings) -> None:
    with client_of(settings) as client:
        assert client.get("/health/live").status_code == client.get("/health/ready").status_code == 200
        assert refused(client.get("/metrics")) == (401, "no_key")
    with client_of(settings, api_metrics_open=True) as client:
        assert client.get("/metrics").status_code == 200
        assert refused(client.get("/sessions")) == (401, "no_key")


def test_a_page_shows_whoever_may_see_it_what_it_asks_for(settings: Settings) -> None:
    with client_of(settings) as client:
        answer = client.get("/", headers=HTML | bearer(MARKETER))
        assert answer.status_code == 200
        assert "Send a key" not in answer.text
        assert 'role="alert"' not in answer.text
        assert "Log out" not in answer.text
        # Nobody says from outside that a page asks.
        inside = {"clickstream.within_a_page": "1", "clickstream-caller": "1", "clickstream.caller": "1"}
        assert refused(client.get("/sessions", headers=inside)) == (401, "no_key")


def test_what_a_page_asks_for_is_answered_as_the_page_was(settings: Settings) -> None:
    with client_of(settings, api_rate_limit=2) as client:
        # Of the page one request counts, however many it makes.
        assert client.get("/", headers=bearer(READER)).status_code == 200
        assert client.get("/", headers=bearer(READER)).status_code == 200


# --- The OpenAPI document ---------------------------------------------------------------------------------------------


def test_the_openapi_document_says_what_needs_a_key(guarded: FlaskClient, nowhere: Settings) -> None:
    document = guarded.get("/openapi.json", headers=bearer(READER)).json
    personal = {re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule) for rule in PERSONAL}
    schemes = document["components"]["securitySchemes"]
    assert schemes["bearer"]["scheme"] == "bearer"
    assert schemes["basic"]["scheme"] == "basic"
    assert schemes["login"]["name"] == "clickstream_session"
    assert "Problem" in document["components"]["schemas"]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if path.startswith("/health/"):
                assert "security" not in operation
                assert "401" not in operation["responses"]
            elif path in ROUTES:
                # The key may be in the address or the body.
                assert operation["security"] == [{"bearer": []}, {"basic": []}, {}]
            else:
                [scope] = operation["security"][0]["bearer"]
                assert operation["security"] == [
                    {"bearer": [scope]},
                    {"basic": [scope]},
                    {"login": [scope]},
                ], path
                assert scope == ("personal" if path in personal else "read"), path
                assert {"401", "403", "429"} <= operation["responses"].keys()
    described = {each["name"]: each for each in document["paths"]["/api/segments"]["get"]["parameters"]}
    for name in ("segment", "anonymous_id"):
        assert described[name]["description"].endswith("A key needs the scope personal for it")
    assert {*PATHS, *POSTED, *ROUTES} == document["paths"].keys()
    with client_of(nowhere, api_keys=None) as client:
        document = client.get("/openapi.json").json
        assert "security" not in document["paths"]["/sessions"]["get"]
        assert "401" not in document["paths"]["/sessions"]["get"]["responses"]


@pytest.mark.parametrize("path", ["/api/segments", "/sessions", "/metrics", "/health/live", "/api/shop"])
@pytest.mark.parametrize("secret", ["", "cs_wrong", COLLECTOR, READER, MARKETER])
def test_every_answer_with_keys_is_as_the_openapi_document_says(
    settings: Settings, path: str, secret: str
) -> None:
    with client_of(settings) as client:
        document = client.get("/openapi.json", headers=bearer(READER)).json
        schema = schemathesis.openapi.from_dict(document)
        schema.app = client.application
        operation = schema[path]["GET"]
        let_in, refused_too = {200, 422}, {403}
        answers = {
            (COLLECTOR, path): refused_too,
            (READER, "/sessions"): refused_too,
            # Who asks who is in a segment, or about one visitor, is refused.
            (READER, "/api/segments"): let_in | refused_too,
        }.get((secret, path), let_in)

        @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE))
        @hypothesis_settings(
            max_examples=5, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
        )
        def ask(case: schemathesis.Case) -> None:
            # What is generated for a key is left out.
            case.headers.pop("Authorization", None)
            case.cookies.clear()
            # With a key that is right it is asked again with a wrong one, and with none.
            response = case.call_and_validate(headers=bearer(secret) if secret else {})
            if path == "/health/live":
                assert response.status_code == 200
            elif secret in ("", "cs_wrong"):
                assert response.status_code in (401, 429)
            else:
                assert response.status_code in answers

        ask()


# --- The login --------------------------------------------------------------------------------------------------------


def test_a_browser_without_a_login_is_shown_the_form_and_then_what_it_asked_for(settings: Settings) -> None:
    with client_of(settings) as client:
        answer = client.get("/trends?days=7&measure=orders", headers=HTML)
        assert answer.status_code == 303
        assert answer.headers["Location"] == "/login?next=%2Ftrends%3Fdays%3D7%26measure%3Dorders"
        assert answer.headers["Cache-Control"] == "no-store"
        form = client.get(answer.headers["Location"], headers=HTML)
        assert form.status_code == 200
        assert '<input type="hidden" name="next" value="/trends?days=7&amp;measure=orders">' in form.text
        assert "unsafe-inline" not in form.headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in form.headers["Content-Security-Policy"]
        assert form.headers["Cache-Control"] == "no-store"
        done = log_in(client, next="/trends?days=7&measure=orders")
        assert (done.status_code, done.headers["Location"]) == (303, "/trends?days=7&measure=orders")
        shown = client.get(done.headers["Location"], headers=HTML)
        assert shown.status_code == 200
        assert re.search(r"Log out <span[^>]*>of the key analyst", shown.text)
        # So are the API's own answers, which the page's links lead to, as far as the key may have them.
        assert client.get("/api/days").status_code == 200
        assert refused(client.get("/sessions")) == (403, "scope_missing")
        assert client.get("/login?next=/docs").headers["Location"] == "/docs"
        assert client.post("/logout", headers=HERE).headers["Location"] == "/login"
        assert client.get("/trends", headers=HTML).status_code == 303
        assert refused(client.get("/sessions")) == (401, "no_key")


@pytest.mark.parametrize(
    "headers",
    [{}, {"Accept": "*/*"}, {"Accept": "application/json"}, HTML | bearer("cs_wrong"), HTML | basic("x")],
)
def test_a_program_is_told_what_is_missing_and_shown_no_form(
    guarded: FlaskClient, headers: dict[str, str]
) -> None:
    assert refused(guarded.get("/", headers=headers))[0] == 401


def test_a_pages_script_is_told_that_the_login_is_over(guarded: FlaskClient) -> None:
    assert refused(guarded.get("/?part=now", headers=HTML)) == (401, "no_key")


@pytest.mark.parametrize(
    ("secret", "status", "said"),
    [
        ("", 401, "Type a key."),
        ("cs_wrong", 401, "This key is not known."),
        (HASHES[0], 401, "This key is not known."),
        (COLLECTOR, 403, "This key may send events and not read."),
    ],
)
def test_a_key_that_may_not_read_logs_nobody_in(
    guarded: FlaskClient, secret: str, status: int, said: str
) -> None:
    answer = log_in(guarded, secret, next="/docs")
    assert (answer.status_code, answer.mimetype) == (status, "text/html")
    assert said in answer.text
    assert 'name="next" value="/docs"' in answer.text
    assert not secret or secret not in answer.text
    assert "Set-Cookie" not in answer.headers
    assert guarded.get("/docs", headers=HTML).status_code == 303


def test_the_cookie_is_for_http_on_this_site_alone_and_ends(guarded: FlaskClient) -> None:
    cookie = cookie_of(log_in(guarded))
    parts = [part.strip() for part in cookie.split(";")]
    assert parts[0].startswith("clickstream_session=")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(parts)
    assert any(part.startswith("Expires=") for part in parts)
    assert READER not in cookie
    assert not any(digest in cookie for digest in HASHES)


@pytest.mark.parametrize(
    ("host", "scheme", "is_secure"),
    [
        ("localhost", "http", False),
        ("127.0.0.1:8000", "http", False),
        ("[::1]:8000", "http", False),
        ("localhost", "https", True),
        ("shop.example", "https", True),
        # Behind a proxy that is not trusted to say that it has come by TLS.
        ("shop.example", "http", True),
        ("192.168.0.7:8000", "http", True),
    ],
)
def test_the_cookie_is_for_tls_alone_unless_all_is_on_this_machine(
    guarded: FlaskClient, host: str, scheme: str, is_secure: bool
) -> None:
    answer = guarded.post(
        "/login",
        base_url=f"{scheme}://{host}",
        data={"key": READER},
        headers={"Origin": f"https://{host}"},
    )
    assert answer.status_code == 303
    assert ("Secure" in cookie_of(answer)) == is_secure


def test_a_login_that_no_browser_would_keep_is_refused_with_the_reason(guarded: FlaskClient) -> None:
    answer = guarded.post(
        "/login",
        base_url="http://shop.example",
        data={"key": READER},
        headers={"Origin": "http://shop.example"},
    )
    assert answer.status_code == 403
    assert "Open this page by https://shop.example" in answer.text
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "null"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://localhost.evil.example"},
        {"Origin": "http://localhost:8001"},
        {"Origin": "http://["},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost"},
    ],
)
def test_a_page_of_another_origin_neither_logs_in_nor_out_nor_posts(
    guarded: FlaskClient, headers: dict[str, str]
) -> None:
    assert refused(guarded.post("/login", data={"key": READER}, headers=headers)) == (403, "foreign_origin")
    assert log_in(guarded).status_code == 303
    assert refused(guarded.post("/logout", headers=headers)) == (403, "foreign_origin")
    posted = guarded.post("/api/session/recommend", json={"products": []}, headers=headers)
    assert refused(posted) == (403, "foreign_origin")
    # A program's key is not sent by a browser by itself.
    with_key = guarded.post("/api/session/recommend", json={"products": 1}, headers=headers | bearer(READER))
    assert with_key.status_code == 422
    here = guarded.post("/api/session/recommend", json={"products": 1}, headers=HERE)
    assert here.status_code == 422
    assert guarded.get("/openapi.json").status_code == 200


def test_a_browser_says_where_a_request_is_from_though_a_proxy_changes_the_host(guarded: FlaskClient) -> None:
    headers = {"Sec-Fetch-Site": "same-origin", "Origin": "https://shop.example"}
    assert guarded.post("/login", data={"key": READER}, headers=headers).status_code == 303


def test_who_comes_from_another_site_is_asked_again_by_a_page_of_ours(guarded: FlaskClient) -> None:
    # Browsers send the cookie only then.
    again = '<meta http-equiv="refresh" content="0; url=/login?next=%2Ftrends%3Fdays%3D7">'
    asked = {"next": "/trends?days=7"}
    elsewhere = guarded.get("/login", query_string=asked, headers={"Sec-Fetch-Site": "cross-site"})
    assert again in elsewhere.text
    here = guarded.get("/login", query_string=asked, headers={"Sec-Fetch-Site": "same-origin"})
    assert "refresh" not in here.text


@pytest.mark.parametrize(
    "address",
    [
        "https://evil.example/",
        "//evil.example/",
        "///evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "\t//evil.example",
        " //evil.example",
        "/\n/evil.example",
        "javascript:alert(1)",
        "evil.example",
        "//[",
        "/login",
        "/login?next=/login",
        "/logout",
        "",
    ],
)
def test_a_login_leads_nowhere_but_to_a_path_of_ours(guarded: FlaskClient, address: str) -> None:
    form = guarded.get("/login", query_string={"next": address})
    assert 'name="next" value="/"' in form.text
    assert log_in(guarded, next=address).headers["Location"] == "/"
    assert guarded.get("/login", query_string={"next": address}).headers["Location"] == "/"


def test_a_login_ends_with_its_key_and_its_time(nowhere: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    signed = {"session_secret": "s" * 32}
    with client_of(nowhere, **signed) as client:
        value = cookie_of(log_in(client)).partition(";")[0].partition("=")[2]

    def status(**changes: Any) -> int:
        with client_of(nowhere, **{**signed, **changes}) as client:
            client.set_cookie("clickstream_session", value)
            return client.get("/openapi.json").status_code

    # Another process with the same secret.
    assert status() == 200
    assert status(session_secret=None) == 401
    assert status(session_secret="t" * 32) == 401
    assert status(api_keys=KEYS.partition(",")[2]) == 401
    assert status(api_keys=entry(READER, Scope.COLLECT)) == 401
    assert status(api_keys=f"{entry(READER, Scope.ADMIN)},{entry(COLLECTOR, Scope.COLLECT)}") == 200
    now = time.time()
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: now + 12 * 3600 - 60)
    assert status() == 200
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: now + 12 * 3600 + 60)
    assert status() == 401


def test_a_cookie_that_was_changed_logs_nobody_in(guarded: FlaskClient) -> None:
    value = cookie_of(log_in(guarded)).partition(";")[0].partition("=")[2]
    for changed in (
        # Not the last character, of whose bits some say nothing.
        value[:-2] + ("A" if value[-2] != "A" else "B") + value[-1],
        value[1:],
        value.rpartition(".")[0],
        "x",
    ):
        guarded.set_cookie("clickstream_session", changed)
        assert guarded.get("/openapi.json").status_code == 401, changed


# --- Limits -----------------------------------------------------------------------------------------------------------


def test_wrong_keys_and_failed_logins_of_an_address_are_limited_together(guarded: FlaskClient) -> None:
    here, there = new_address(), new_address()
    for attempt in range(11):
        if attempt % 2:
            answer = guarded.post("/login", data={"key": "wrong"}, headers=HERE, environ_overrides=here)
        else:
            answer = guarded.get("/sessions", headers=bearer(f"wrong-{attempt}"), environ_overrides=here)
        assert answer.status_code == 401, attempt
    refusal = guarded.get("/sessions", headers=bearer("wrong"), environ_overrides=here)
    assert refused(refusal) == (429, "too_many_wrong_keys")
    assert 1 <= int(refusal.headers["Retry-After"]) <= 6
    form = guarded.post("/login", data={"key": "wrong"}, headers=HERE, environ_overrides=here)
    assert form.status_code == 429
    assert "Too many wrong keys" in form.text
    # Else one could go on to guess.
    assert refused(guarded.get("/sessions", headers=bearer(READER), environ_overrides=here))[0] == 429
    right = guarded.post("/login", data={"key": READER}, headers=HERE, environ_overrides=here)
    assert (right.status_code, "Set-Cookie" in right.headers) == (429, False)
    # Whoever sends none guesses nothing, and others are others.
    assert refused(guarded.get("/sessions", environ_overrides=here)) == (401, "no_key")
    assert guarded.get("/openapi.json", headers=bearer(READER), environ_overrides=there).status_code == 200


def test_a_login_stays_while_others_of_its_address_guess(guarded: FlaskClient) -> None:
    assert log_in(guarded).status_code == 303
    statuses = {guarded.get("/sessions", headers=bearer("wrong")).status_code for _ in range(13)}
    assert statuses == {401, 429}
    assert guarded.get("/openapi.json").status_code == 200


def test_an_ipv6_network_is_one_client(guarded: FlaskClient) -> None:
    def ask(address: str, secret: str = "wrong") -> int:
        overrides = {"REMOTE_ADDR": address}
        return guarded.get("/openapi.json", headers=bearer(secret), environ_overrides=overrides).status_code

    assert [ask(f"2001:db8:0:1::{number:x}") for number in range(11)] == [401] * 11
    assert ask("2001:db8:0:1:ffff::1") == 429
    assert ask("2001:db8:0:2::1", READER) == 200


def test_requests_of_a_key_or_else_of_an_address_are_limited(nowhere: Settings) -> None:
    with client_of(nowhere, api_rate_limit=0.5) as client:

        def ask(secret: str, **address: str) -> TestResponse:
            return client.get("/openapi.json", headers=bearer(secret), environ_overrides=address)

        assert [ask(READER).status_code, ask(READER).status_code] == [200, 429]
        # From elsewhere it is the same client; another key, also of that name, another.
        answer = ask(READER, **new_address())
        assert refused(answer) == (429, "too_many_requests")
        assert answer.json["detail"] == "More than 0.5 requests a second came from this client."
        assert answer.headers["Retry-After"] in ("1", "2")
        assert ask(NEW_READER).status_code == ask(ADMIN).status_code == 200
        assert [client.get("/health/live").status_code for _ in range(3)] == [200] * 3
    with client_of(nowhere, api_keys=None, api_rate_limit=0.5) as client:
        here, there = new_address(), new_address()
        statuses = [
            client.get("/openapi.json", environ_overrides=address).status_code
            for address in (here, here, there)
        ]
        assert statuses == [200, 429, 200]
        assert (
            "429"
            in client.get("/openapi.json", environ_overrides=new_address()).json["paths"]["/sessions"]["get"][
                "responses"
            ]
        )


# --- Headers and logs -------------------------------------------------------------------------------------------------


def test_every_answer_has_its_headers(settings: Settings) -> None:
    for keys in (KEYS, None):
        with client_of(settings, api_keys=keys) as client:
            for _, address, method in routes(client):
                for headers in ({}, HTML, bearer(READER)):
                    answer = client.open(address, method=method, headers=headers)
                    assert answer.headers["X-Content-Type-Options"] == "nosniff", address
                    assert answer.headers["Referrer-Policy"] == "same-origin", address
                    # The proxy's.
                    assert "Strict-Transport-Security" not in answer.headers
                    if answer.mimetype == "text/html" and answer.status_code != 303 and answer.data:
                        policy = answer.headers["Content-Security-Policy"]
                        assert "script-src 'self'" in policy
                        assert "unsafe-inline" not in policy


def test_pages_own_files_are_open_and_kept(guarded: FlaskClient) -> None:
    answer = guarded.get("/static/pages.css")
    assert answer.status_code == 200
    assert "immutable" in answer.headers["Cache-Control"]
    assert "Set-Cookie" not in answer.headers
    assert "Cookie" not in answer.headers.get("Vary", "")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("LOCALHOST:80", True),
        ("a.localhost", True),
        ("127.9.9.9:8000", True),
        ("[::1]:8000", True),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
        ("10.0.0.1", False),
        ("[::", False),
        ("", False),
    ],
)
def test_loopback_is_known_by_its_name_and_addresses(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


# --- As it is served --------------------------------------------------------------------------------------------------


def test_served_with_keys_all_workers_know_a_login_and_nothing_of_a_key_is_logged(settings: Settings) -> None:
    with served(settings, API_KEYS=KEYS, API_WORKERS="3") as api:
        with requests.Session() as browser:
            form = browser.get(f"{api.address}/docs", headers=HTML, timeout=20)
            assert form.url == f"{api.address}/login?next=%2Fdocs"
            sent = {"key": READER, "next": "/docs"}
            done = browser.post(
                f"{api.address}/login", data=sent, headers={"Origin": api.address}, timeout=20
            )
            assert (done.status_code, done.url) == (200, f"{api.address}/docs")
            cookie = browser.cookies["clickstream_session"]
        # Each on a connection of its own, so whichever worker is free answers.
        for _ in range(20):
            cookies = {"clickstream_session": cookie}
            assert requests.get(f"{api.address}/api/days", cookies=cookies, timeout=20).status_code == 200
        statuses = [
            requests.get(
                f"{api.address}/sessions", headers=bearer(f"cs_guess_{attempt}"), timeout=20
            ).status_code
            for attempt in range(14)
        ]
        assert statuses == [401] * 11 + [429] * 3
        # The collector's guesses are of the same address, and a shop's public key is let in all the same.
        guess = requests.post(f"{api.address}/v1/track", auth=("cs_guess", ""), json={}, timeout=20)
        assert (guess.status_code, guess.json()["code"]) == (429, "too_many_wrong_keys")
        empty = requests.post(f"{api.address}/v1/track", auth=(COLLECTOR, ""), data=b"", timeout=20)
        assert (empty.status_code, empty.json()["code"]) == (400, "no_events")
        for answer in (guess, empty):
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "same-origin"
            assert answer.headers["Cache-Control"] == "no-store"
        api.wait_for(r'"route":"/v1/track","status":400')
        api.process.terminate()
        assert api.process.wait(timeout=30) == 0
        log = "".join(api.log)
        for secret in (READER, COLLECTOR, ADMIN, "cs_guess", cookie, *HASHES):
            assert secret not in log
        assert "127.0.0.1" not in re.sub(r"Listening at: \S+", "", log)


def test_what_a_trusted_proxy_says_of_its_client_is_believed_and_of_others_not(settings: Settings) -> None:
    def ask(address: str, client: str, secret: str) -> int:
        headers = bearer(secret) | {"X-Forwarded-For": client}
        return requests.get(f"{address}/openapi.json", headers=headers, timeout=20).status_code

    with served(settings, API_KEYS=KEYS, API_TRUSTED_PROXIES="127.0.0.0/8") as api:
        assert [ask(api.address, "192.0.2.1", "wrong") for _ in range(12)] == [401] * 11 + [429]
        # Who says it of themselves is not believed.
        assert ask(api.address, "203.0.113.9, 192.0.2.1", READER) == 429
        assert ask(api.address, "192.0.2.2", READER) == 200
        login: dict[str, Any] = {"data": {"key": READER}, "allow_redirects": False, "timeout": 20}
        headers = {"Origin": api.address, "X-Forwarded-For": "192.0.2.3", "X-Forwarded-Proto": "https"}
        assert (
            "Secure" in requests.post(f"{api.address}/login", headers=headers, **login).headers["Set-Cookie"]
        )
    with served(settings, API_KEYS=KEYS) as api:
        statuses = [ask(api.address, f"192.0.2.{number}", "wrong") for number in range(12)]
        assert statuses == [401] * 11 + [429]


@pytest.mark.parametrize(
    ("variables", "warned"),
    [
        ({"API_HOST": "0.0.0.0", "API_KEYS": KEYS}, None),
        ({"API_HOST": "0.0.0.0", "API_BEHIND_LOGIN": "true"}, None),
        ({"API_HOST": "127.0.0.1"}, None),
        ({"API_HOST": "localhost"}, None),
        (
            {"API_HOST": "127.0.0.1", "API_KEYS": entry(COLLECTOR, Scope.COLLECT)},
            "API_KEYS has no key that may read, so nobody can",
        ),
    ],
)
def test_an_api_that_nobody_can_read_says_so_when_it_starts(
    settings: Settings, variables: dict[str, str], warned: str | None
) -> None:
    with served(settings, **variables) as api:
        log = "".join(api.log)
    if warned:
        assert warned in log
        assert "clickstream keys new --scope read NAME" in log
    else:
        assert "API_KEYS" not in log


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_an_api_that_strangers_could_read_does_not_start(host: str) -> None:
    refused = subprocess.run(
        [*COMMAND, "--host", host, "--port", "0"],
        env=environment(Settings(_env_file=None)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert refused.returncode == 1
    assert f"API_HOST={host} can be reached from other machines, and API_KEYS is not set" in refused.stderr
    assert "`clickstream keys new --scope read NAME`" in refused.stderr
    assert "API_BEHIND_LOGIN to true" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert refused.stdout == ""


def test_keys_that_cannot_be_read_end_the_command_with_the_place_and_the_fix() -> None:
    failed = subprocess.run(
        [*COMMAND, "--port", "0"],
        env=environment(Settings(_env_file=None)) | {"API_KEYS": f"{KEYS}, shop:collect:cs_oops"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert failed.returncode == 1
    assert "API_KEYS: entry 6: its third part has 7 characters" in failed.stderr
    assert "cs_oops" not in failed.stderr
    assert "Traceback" not in failed.stderr
