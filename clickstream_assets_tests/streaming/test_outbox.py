import base64
import hashlib
import hmac
import io
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import psycopg
import pytest
from psycopg.types.json import Jsonb
from standardwebhooks import Webhook

from clickstream_assets.settings import Settings, SettingsError, load_settings
from clickstream_assets.stores.postgres.connection import connect
from clickstream_assets.streaming.outbox import box, deliver_pending
from clickstream_assets_tests.databases import free_port, fresh_database, query, with_settings
from clickstream_assets_tests.web import Answer, Request, web_server

KEY = bytes(range(24))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
ALERT = {
    "window_start": "2024-05-31T12:00:00+00:00",
    "window_end": "2024-05-31T12:10:00+00:00",
    "product_id": "product_7",
    "views": 1204,
    "purchases": 2,
    "product_category": "electronics",
    "usual_views": 31.25,
    "kind": "opened",
}


@pytest.fixture
def settings(postgres: Settings) -> Iterator[Settings]:
    with fresh_database(postgres) as own:
        yield with_settings(own, alert_webhook_secret=SECRET, alert_webhook_timeout_seconds=0.5)


def put(
    settings: Settings,
    *notifications: tuple[str, int],
    sink: str = "webhook",
    kind: str = "opened",
    **fields: Any,
) -> None:
    """Put notifications into the outbox, as the stream does."""
    with connect(settings) as connection:
        for name, sequence in notifications:
            content = Jsonb(ALERT | {"alert_id": name, "kind": kind} | fields)
            connection.execute(
                "INSERT INTO alert_notifications (notified_id, sequence, kind, sink, payload) "
                "VALUES (%s, %s, %s, %s, %s)",
                [name, sequence, kind, sink, content],
            )


def change(settings: Settings, statement: str) -> None:
    with connect(settings) as connection:
        psycopg.Cursor(connection).execute(statement.encode())


def make_due(settings: Settings) -> None:
    """Let the time pass that a notification has to wait."""
    change(settings, "UPDATE alert_notifications SET next_attempt_at = now()")


def states(settings: Settings) -> list[tuple[object, ...]]:
    """State, attempts and last error of each notification."""
    return query(
        settings,
        "SELECT CASE WHEN failed_at IS NOT NULL THEN 'failed' WHEN delivered_at IS NOT NULL THEN 'delivered' "
        "ELSE 'pending' END, attempts, last_error FROM alert_notifications ORDER BY id",
    )


def seconds_to_wait(settings: Settings) -> float:
    ((seconds,),) = query(
        settings, "SELECT extract(epoch FROM next_attempt_at - now()) FROM alert_notifications"
    )
    return float(seconds)


def ids(requests: list[Request]) -> list[str]:
    return [request.headers["webhook-id"] for request in requests]


def test_notifications_are_posted_once_in_order_and_signed(settings: Settings):
    put(settings, ("b", 1), ("a", 1), ("b", 2))
    with web_server(lambda _: Answer(204)) as server:
        own = with_settings(settings, alert_webhook_url=f"{server.url}/alerts?to=shop")
        assert deliver_pending(own) == 3
        assert deliver_pending(own) == 0
    assert ids(server.requests) == ["b-1", "a-1", "b-2"]
    assert states(settings) == [("delivered", 1, None)] * 3
    request = server.requests[0]
    assert (request.method, request.path) == ("POST", "/alerts?to=shop")
    assert request.headers["Content-Type"] == "application/json"
    assert msgspec.json.decode(request.body) == ALERT | {"alert_id": "b"}
    assert Webhook(SECRET).verify(request.body, dict(request.headers)) == ALERT | {"alert_id": "b"}
    signed = f"b-1.{request.headers['webhook-timestamp']}.".encode() + request.body
    digest = hmac.new(KEY, signed, hashlib.sha256).digest()
    assert request.headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()


def test_without_a_secret_nothing_is_signed(settings: Settings):
    put(settings, ("a", 1))
    with web_server(lambda _: Answer(200, b"thanks")) as server:
        deliver_pending(with_settings(settings, alert_webhook_url=server.url, alert_webhook_secret=None))
    assert "webhook-signature" not in server.requests[0].headers


@pytest.mark.parametrize("secret", ["k3y", "whsec_" + base64.b64encode(KEY[:23]).decode(), SECRET[:-1] + "!"])
def test_a_secret_of_another_form_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch, secret: str):
    monkeypatch.setenv("ALERT_WEBHOOK_SECRET", secret)
    with pytest.raises(SettingsError, match=r"ALERT_WEBHOOK_SECRET is not whsec_ .*openssl rand") as caught:
        load_settings()
    assert secret not in str(caught.value)
    monkeypatch.setenv("ALERT_WEBHOOK_SECRET", SECRET.removeprefix("whsec_"))
    assert load_settings().alert_webhook_secret


@pytest.mark.parametrize("status", [500, 503, 408, 429])
def test_receiver_that_fails_is_tried_again_later_with_the_same_id(settings: Settings, status: int):
    put(settings, ("a", 1), ("b", 1))
    answers = iter([status, 200, 200])
    with web_server(lambda _: Answer(next(answers))) as server:
        own = with_settings(settings, alert_webhook_url=server.url)
        # One attempt, not one per notification: a receiver that fails is left alone.
        assert deliver_pending(own) == 0
        assert states(settings) == [("pending", 1, f"HTTP {status}"), ("pending", 0, None)]
        make_due(settings)
        assert deliver_pending(own) == 2
    assert ids(server.requests) == ["a-1", "a-1", "b-1"]
    assert states(settings) == [("delivered", 2, None), ("delivered", 1, None)]


@pytest.mark.parametrize("status", [410, 400, 401, 302])
def test_refusal_is_final_and_stops_no_other_notification(settings: Settings, status: int):
    put(settings, ("a", 1), ("a", 2), ("b", 1))
    answers = iter([status, 200, 200])
    with web_server(lambda _: Answer(next(answers), headers={"Location": "/elsewhere"})) as server:
        own = with_settings(settings, alert_webhook_url=server.url)
        assert deliver_pending(own) == 2
        make_due(settings)
        assert deliver_pending(own) == 0
    assert ids(server.requests) == ["a-1", "a-2", "b-1"]
    assert states(settings)[0] == ("failed", 1, f"HTTP {status}")


def test_waits_grow_until_the_notification_has_failed(settings: Settings):
    put(settings, ("a", 1))
    own = with_settings(
        settings, alert_webhook_url=f"http://127.0.0.1:{free_port()}/secret-path", alert_delivery_attempts=10
    )
    waits = []
    for _ in range(10):
        make_due(settings)
        assert deliver_pending(own) == 0
        waits.append(seconds_to_wait(settings))
    assert [round(wait / 5) for wait in waits[:8]] == [1, 2, 4, 8, 16, 32, 64, 128]
    assert [round(wait / 60) for wait in waits[8:]] == [15, 15]
    make_due(settings)
    assert deliver_pending(own) == 0
    [(state, attempts, error)] = states(settings)
    assert (state, attempts) == ("failed", 10)
    assert "secret-path" not in str(error)


def test_notification_waits_for_the_one_before_it_of_the_same_alert(settings: Settings):
    put(settings, ("a", 1), ("a", 2), ("b", 1))
    answers = iter([500, 200, 200, 200])
    with web_server(lambda _: Answer(next(answers))) as server:
        own = with_settings(settings, alert_webhook_url=server.url)
        deliver_pending(own)
        assert deliver_pending(own) == 1
        make_due(settings)
        assert deliver_pending(own) == 2
    assert ids(server.requests) == ["a-1", "b-1", "a-1", "a-2"]


def test_slow_receiver_is_not_waited_for(settings: Settings):
    put(settings, ("a", 1))
    put(settings, ("a", 1), sink="console")
    console = io.StringIO()
    go_on = threading.Event()
    with web_server(lambda _: Answer(200) if go_on.wait(30) else Answer(500)) as server:
        own = with_settings(settings, alert_webhook_url=server.url)
        assert deliver_pending(own, console=console) == 1
        go_on.set()
    assert states(settings) == [("pending", 1, "no answer (ReadTimeoutError)"), ("delivered", 1, None)]
    assert "product_7" in console.getvalue()


def test_two_deliverers_at_once_send_each_notification_once(settings: Settings):
    put(settings, *((name, 1) for name in "abcdefgh"))
    both = threading.Barrier(2)
    met = threading.Event()

    def answer(_: Request) -> Answer:
        if not met.is_set():
            # The first two requests wait for each other: two notifications are under way.
            both.wait(30)
            met.set()
        return Answer(200)

    with web_server(answer) as server:
        own = with_settings(settings, alert_webhook_url=server.url, alert_webhook_timeout_seconds=30)
        counts: list[int] = []
        threads = [threading.Thread(target=lambda: counts.append(deliver_pending(own))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sum(counts) == 8
    assert sorted(ids(server.requests)) == [f"{name}-1" for name in "abcdefgh"]


def test_nothing_is_begun_when_the_time_is_over(settings: Settings):
    put(settings, ("a", 1), sink="console")
    assert deliver_pending(settings, seconds=0) == 0
    assert states(settings) == [("pending", 0, None)]


def test_webhook_notifications_wait_while_no_webhook_is_set(settings: Settings):
    put(settings, ("a", 1))
    assert deliver_pending(settings) == 0
    assert states(settings) == [("pending", 0, None)]


def test_console_shows_a_box(settings: Settings):
    put(settings, ("a", 1), sink="console")
    console = io.StringIO()
    assert deliver_pending(settings, console=console) == 1
    assert console.getvalue().splitlines() == [
        "+----------------------------------------------------------------------+",
        "| FLASH SALE OPPORTUNITY                                               |",
        "+----------------------------------------------------------------------+",
        "| Product:     product_7                                               |",
        "| Category:    electronics                                             |",
        "| Window:      2024-05-31 12:00 UTC to 2024-05-31 12:10 UTC            |",
        "| Views:       1,204                                                   |",
        "| Purchases:   2                                                       |",
        "| Usual views: 31.2                                                    |",
        "+----------------------------------------------------------------------+",
    ]


def test_box_of_a_withdrawn_alert_of_a_product_with_a_strange_id():
    payload = {
        "product_id": "p\x1b[31m" + "x" * 100,
        "first_window_start": "2024-05-31T14:00:00+02:00",
        "reason": "sold",
    }
    shown = box("withdrawn", payload)
    assert "\x1b" not in shown
    assert "2024-05-31 12:00 UTC" in shown
    assert {len(line) for line in shown.splitlines()} == {72}
    assert shown.count("x") == 100
    assert "it sold before its windows were closed" in shown
    assert "counted anew" in box("withdrawn", payload | {"reason": "recounted"})
