"""Dagster's pages behind their login: the real proxy before a real web server, asked by programs and by a browser."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from playwright.sync_api import BrowserContext, WebSocket, expect
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from clickstream_assets.local.children import Child, running
from clickstream_assets.local.ports import LOOPBACK, free_port
from clickstream_assets_tests.browsing import chromium, needs_chromium
from clickstream_assets_tests.deploy.containers import wait_until
from clickstream_assets_tests.deploy.files import ROOT, SERVICES
from clickstream_assets_tests.web import Answer, Request, web_server

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.xdist_group("browser")]
FOLDER = ROOT / "deploy" / "dagster"
PASSWORD = 'a "long" pass$word {of} ours'
ELSEWHERE = "http://shop.example.com"
# It changes something, and what it changes can be asked for.
CHANGE = "mutation { setAutoMaterializePaused(paused: true) }"
BACK = CHANGE.replace("true", "false")
LOOK = "{ instance { autoMaterializePaused } }"
CODE = """
import dagster as dg


@dg.asset
def clicks() -> int:
    return 1


defs = dg.Definitions(assets=[clicks])
"""


def caddy() -> Path:
    """The proxy, which `make caddy` builds into the venv; skips the test where it could not."""
    program = shutil.which("caddy", path=str(Path(sys.prefix, "bin"))) or shutil.which("caddy")
    if program is None:
        pytest.skip("Caddy is missing, so the login is not tested; `make caddy` says why")
    return Path(program)


@dataclass(frozen=True)
class Proxied:
    """The web server's own address and the proxy's."""

    direct: str
    address: str

    @property
    def host(self) -> str:
        return urlsplit(self.address).netloc


def login(password: str = PASSWORD, user: str = "dagster") -> dict[str, str]:
    return {"Authorization": f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"}


@contextmanager
def proxy(upstream: str, folder: Path, **variables: str) -> Iterator[tuple[str, Child]]:
    """Run the proxy as its container does, on loopback."""
    program = caddy()
    port = free_port()
    environment = {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        "WEBSERVER": urlsplit(upstream).netloc,
        "WEBSERVER_HOST": LOOPBACK,
        "WEBSERVER_PORT": str(port),
        **variables,
    }
    command = ["sh", str(FOLDER / "start.sh")]
    address = f"http://{LOOPBACK}:{port}"
    with running("Caddy", command, folder / "caddy.log", environment, folder) as process:
        wait_until(lambda: is_there(address, process))
        yield address, process


def is_there(address: str, process: Child, path: str = "/health/live") -> bool:
    process.check()
    try:
        return ask(address, path).status == 200
    except ConnectionError:
        return False


@pytest.fixture(autouse=True)
def unchanged(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test leaves what it may change as it was."""
    yield
    if "proxied" in request.fixturenames:
        graphql(request.getfixturevalue("proxied").direct, BACK)


def is_changed(proxied: Proxied) -> bool:
    return json.loads(graphql(proxied.direct, LOOK).body)["data"]["instance"]["autoMaterializePaused"]


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    folder = tmp_path_factory.mktemp("login")
    (folder / "shop.py").write_text(CODE)
    (folder / "password").write_text(PASSWORD)
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    port = free_port()
    environment = os.environ | {"DAGSTER_HOME": str(folder)}
    command = [str(Path(sys.executable).with_name("dagster-webserver")), "--host", LOOPBACK]
    command += ["--port", str(port), "--python-file", str(folder / "shop.py")]
    direct = f"http://{LOOPBACK}:{port}"
    caddy()
    with running("Dagster's web server", command, folder / "webserver.log", environment, folder) as process:
        wait_until(lambda: is_there(direct, process, "/server_info"))
        with proxy(direct, folder, WEBSERVER_PASSWORD_FILE=str(folder / "password")) as (address, _):
            yield Proxied(direct, address)


@dataclass(frozen=True)
class Said:
    status: int
    headers: dict[str, str]
    body: str


def ask(
    address: str,
    path: str = "/",
    method: str = "GET",
    body: str | None = None,
    headers: dict[str, str] | None = None,
) -> Said:
    connection = HTTPConnection(urlsplit(address).netloc, timeout=60)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
        return Said(answer.status, {name.lower(): value for name, value in answer.getheaders()}, text)
    finally:
        connection.close()


def graphql(address: str, query: str, **headers: str) -> Said:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = json.dumps({"query": query})
    return ask(address, "/graphql", "POST", body, {"Content-Type": "application/json"} | named)


def test_the_web_server_alone_takes_changes_by_get_from_anywhere(proxied: Proxied):
    """What the proxy is for; were it otherwise, it could go."""
    changed = ask(proxied.direct, f"/graphql?query={quote(CHANGE)}", headers={"Origin": ELSEWHERE})
    assert changed.status == 200
    assert json.loads(changed.body)["data"] == {"setAutoMaterializePaused": True}
    assert is_changed(proxied)


@pytest.mark.parametrize("path", ["/", "/overview", "/graphql", "/logs/x/1/stdout", "/robots.txt"])
def test_without_a_login_nothing_is_shown(proxied: Proxied, path: str):
    method = "POST" if path == "/graphql" else "GET"
    said = ask(
        proxied.address,
        path,
        method,
        "{}" if method == "POST" else None,
        {"Content-Type": "application/json"},
    )
    assert said.status == 401
    assert said.headers["www-authenticate"] == 'Basic realm="Dagster"'
    assert said.body == "401 Unauthorized"


@pytest.mark.parametrize(
    "wrong", [login("guessed"), login(""), login(user="root"), {"Authorization": "Bearer x"}]
)
def test_a_wrong_login_is_refused(proxied: Proxied, wrong: dict[str, str]):
    assert graphql(proxied.address, LOOK, **wrong).status == 401


def test_whoever_logs_in_asks_and_changes_by_post(proxied: Proxied):
    own = {"Origin": proxied.address, "Sec_Fetch_Site": "same-origin"}
    # Programs name no origin.
    for headers in ({}, own):
        said = graphql(proxied.address, CHANGE, **login(), **headers)
        assert (said.status, json.loads(said.body)["data"]) == (200, {"setAutoMaterializePaused": True})
        assert json.loads(graphql(proxied.address, LOOK, **login()).body)["data"] == {
            "instance": {"autoMaterializePaused": True}
        }
        graphql(proxied.direct, BACK)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "OPTIONS"])
@pytest.mark.parametrize(
    "path", ["/graphql", "/graphql/", "/%67raphql", "/GraphQL", "/x/../graphql", "//graphql"]
)
def test_graphql_is_taken_by_post_alone(proxied: Proxied, path: str, method: str):
    said = ask(proxied.address, f"{path}?query={quote(CHANGE)}", method, headers=login())
    assert said.status == 405


@pytest.mark.parametrize(
    "upgrade",
    [
        {"Connection": "Upgrade"},
        {"Upgrade": "websocket"},
        {"Connection": "close", "Upgrade": "websocket"},
        {"Connection": "Upgrade", "Upgrade": "h2c"},
        # Without the key of a handshake the web server makes none of it.
        {"Connection": "Upgrade", "Upgrade": "websocket"},
    ],
)
def test_what_only_looks_like_a_websocket_changes_nothing(proxied: Proxied, upgrade: dict[str, str]):
    said = ask(proxied.address, f"/graphql?query={quote(CHANGE)}", headers=login() | upgrade)
    assert said.status >= 400
    assert not is_changed(proxied)


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/graphql", ""]
)
def test_a_form_is_no_query(proxied: Proxied, kind: str):
    body = json.dumps({"query": CHANGE})
    path = f"/graphql?query={quote(CHANGE)}"
    assert ask(proxied.address, path, "POST", body, login() | {"Content-Type": kind}).status == 415


@pytest.mark.parametrize(
    "foreign",
    [
        {"Origin": ELSEWHERE},
        {"Origin": "null"},
        {"Origin": f"http://{LOOPBACK}:1"},
        {"Sec_Fetch_Site": "cross-site"},
        # Another port of this machine, such as Kibana's.
        {"Sec_Fetch_Site": "same-site"},
    ],
)
def test_other_sites_are_refused_whoever_is_logged_in(proxied: Proxied, foreign: dict[str, str]):
    assert graphql(proxied.address, CHANGE, **login(), **foreign).status == 403
    report = ask(
        proxied.address,
        "/report_asset_materialization/clicks",
        "POST",
        headers=login() | {name.replace("_", "-"): value for name, value in foreign.items()},
    )
    assert report.status == 403


def test_a_link_from_elsewhere_may_be_followed_and_not_framed(proxied: Proxied):
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert ask(proxied.address, "/overview", headers=login() | followed).status == 200
    framed = followed | {"Sec-Fetch-Dest": "iframe"}
    assert ask(proxied.address, "/overview", headers=login() | framed).status == 403


def test_answers_have_the_usual_headers_and_none_that_lets_others_read(proxied: Proxied):
    for said in (ask(proxied.address, "/overview", headers=login()), ask(proxied.address, "/overview")):
        assert said.headers["x-content-type-options"] == "nosniff"
        assert said.headers["x-frame-options"] == "SAMEORIGIN"
        assert said.headers["referrer-policy"] == "same-origin"
        assert said.headers["cross-origin-opener-policy"] == "same-origin"
        assert said.headers["cross-origin-resource-policy"] == "same-origin"
        assert not [name for name in said.headers if name.startswith("access-control-") or name == "server"]
    own = graphql(proxied.address, LOOK, **login(), Origin=proxied.address)
    assert not [name for name in own.headers if name.startswith("access-control-")]


def subscribe(proxied: Proxied, origin: str | None, headers: dict[str, str]) -> list[dict[str, Any]]:
    """Open a websocket as Dagster's pages do; return what it says of having begun, and of what is asked for."""
    with connect(
        f"ws://{proxied.host}/graphql",
        subprotocols=[Subprotocol("graphql-ws")],
        origin=Origin(origin) if origin else None,
        additional_headers=headers,
        open_timeout=60,
    ) as socket:
        socket.send(json.dumps({"type": "connection_init"}))
        said = [json.loads(socket.recv(60))]
        socket.send(
            json.dumps({"type": "start", "id": "1", "payload": {"query": "subscription { nothing }"}})
        )
        said.append(json.loads(socket.recv(60)))
        return said


def test_a_websocket_is_let_through_from_its_own_pages_alone(proxied: Proxied):
    for origin in (proxied.address, None):
        begun, answered = subscribe(proxied, origin, login())
        assert begun == {"type": "connection_ack"}
        assert answered["id"] == "1"
    for origin, headers, status in ((ELSEWHERE, login(), 403), (proxied.address, {}, 401)):
        with pytest.raises(InvalidStatus) as refused:
            subscribe(proxied, origin, headers)
        assert refused.value.response.status_code == status


def test_health_checks_need_no_login_and_say_nothing_of_what_is_there(proxied: Proxied):
    assert ask(proxied.address, "/health/live").body == "alive"
    asked = ask(proxied.address, "/server_info")
    assert set(json.loads(asked.body)) == {
        "dagster_webserver_version",
        "dagster_version",
        "dagster_graphql_version",
    }


def test_the_login_does_not_reach_the_web_server(tmp_path: Path):
    (tmp_path / "password").write_text(PASSWORD)
    with web_server(lambda _: Answer()) as behind:
        with proxy(behind.url, tmp_path, WEBSERVER_PASSWORD_FILE=str(tmp_path / "password")) as (address, _):
            assert ask(address, "/overview", headers=login()).status == 200
        seen = behind.requests[-1]
    assert "Authorization" not in seen.headers
    # Nor a log, nor what other users of the machine see.
    assert PASSWORD not in (tmp_path / "caddy.log").read_text()
    assert login()["Authorization"].removeprefix("Basic ") not in (tmp_path / "caddy.log").read_text()
    assert '"user_id":"dagster"' in (tmp_path / "caddy.log").read_text()


def test_behind_a_login_of_somebody_elses_it_asks_for_none_and_still_refuses_other_sites(tmp_path: Path):
    with (
        web_server(lambda _: Answer()) as behind,
        proxy(behind.url, tmp_path, WEBSERVER_LOGIN="none") as (address, _),
    ):
        assert ask(address, "/overview").status == 200
        assert ask(address, "/graphql?query={version}").status == 405
        assert graphql(address, CHANGE, Origin=ELSEWHERE).status == 403


@pytest.mark.parametrize("content", [None, ""])
def test_it_does_not_start_without_a_password(tmp_path: Path, content: str | None):
    file = tmp_path / "password"
    if content is not None:
        file.write_text(content)
    environment = {"PATH": f"{caddy().parent}:{os.environ['PATH']}", "WEBSERVER_PASSWORD_FILE": str(file)}
    started = subprocess.run(
        ["sh", FOLDER / "start.sh"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert started.returncode == 1
    assert started.stderr == f"WEBSERVER_PASSWORD_FILE={file} has no password; Dagster's pages ask for one.\n"


def test_the_configuration_is_as_caddy_writes_it_and_of_the_images_version():
    formatted = subprocess.run(
        [caddy(), "fmt", FOLDER / "Caddyfile"], capture_output=True, text=True, check=False
    )
    assert formatted.stdout == (FOLDER / "Caddyfile").read_text()
    (version,) = [
        line.partition(":= v")[2]
        for line in (ROOT / "Makefile").read_text().splitlines()
        if line.startswith("CADDY :=")
    ]
    assert SERVICES["dagster"]["image"].partition("@")[0] == f"caddy:{version}"


@pytest.fixture(scope="module")
def reader(proxied: Proxied) -> Iterator[BrowserContext]:
    """A browser that is logged in."""
    with chromium() as browser:
        context = browser.new_context(
            http_credentials={"username": "dagster", "password": PASSWORD, "origin": proxied.address}
        )
        yield context
        context.close()


@needs_chromium
def test_dagsters_own_pages_work_in_a_browser(proxied: Proxied, reader: BrowserContext):
    page = reader.new_page()
    refused: list[str] = []
    sockets: list[str] = []
    frames: list[str | bytes] = []
    page.on("response", lambda got: refused.append(f"{got.status} {got.url}") if got.status > 401 else None)

    def watch(socket: WebSocket) -> None:
        sockets.append(socket.url)
        socket.on("framereceived", lambda frame: frames.append(frame))

    page.on("websocket", watch)
    page.goto(f"{proxied.address}/assets/clicks")
    expect(page.get_by_text("clicks").first).to_be_visible(timeout=60_000)
    expect(page.get_by_role("button", name="Materialize").first).to_be_visible(timeout=60_000)
    page.wait_for_timeout(1000)
    assert set(sockets) == {f"ws://{proxied.host}/graphql"}
    assert any("connection_ack" in str(frame) for frame in frames)
    assert refused == []


# What the page of another site can have a browser do: each is to fail, though the browser has the login.
ATTACKS = {
    "a form's text": "fetch(`${dagster}/graphql`, {method: 'POST', mode: 'no-cors', credentials: 'include', body})",
    "json": "fetch(`${dagster}/graphql`, {method: 'POST', credentials: 'include', body,"
    " headers: {'Content-Type': 'application/json'}})",
    "a picture": "new Promise(done => {const i = new Image(); i.onload = i.onerror = done;"
    " i.src = `${dagster}/graphql?query=${encodeURIComponent(query)}`})",
    "a websocket": "new Promise(done => {const s = new WebSocket(dagster.replace('http', 'ws') + '/graphql',"
    " 'graphql-ws'); s.onerror = done; s.onmessage = done;"
    " s.onopen = () => s.send(JSON.stringify({type: 'connection_init'}))})",
}


@needs_chromium
@pytest.mark.parametrize("attack", ATTACKS)
def test_the_page_of_another_site_changes_nothing_in_a_browser_that_is_logged_in(
    proxied: Proxied, reader: BrowserContext, attack: str
):
    def serve(_: Request) -> Answer:
        return Answer(body=b"<title>a shop</title>", headers={"Content-Type": "text/html"})

    def attack_on(dagster: str) -> None:
        page = reader.new_page()
        page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: opened.append(frame)))
        page.goto(other.url)
        script = (
            "async ([dagster, query]) => {const body = JSON.stringify({query});"
            f"try {{await {ATTACKS[attack]}}} catch (error) {{}}}}"
        )
        page.evaluate(script, [dagster, CHANGE])

    opened: list[str | bytes] = []
    with web_server(serve) as other:
        attack_on(proxied.address)
        assert (is_changed(proxied), opened) == (False, [])
        if attack == "a picture":
            # Without the proxy it would, so this is tried as it works.
            attack_on(proxied.direct)
            assert is_changed(proxied)
