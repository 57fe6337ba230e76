"""Records of other trackers become the events that they say, on the same terms as own records."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from clickstream_assets.catalogue import EVENT_TYPES, EVENTS, RAW_EVENTS, REJECTED_EVENTS
from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.ingest.classification import classify_records
from clickstream_assets.ingest.dialects.snowplow import PLACES
from clickstream_assets.ingest.fields import NO_TIME_OF_DAY, Rejection, ValidationRules
from clickstream_assets.ingest.parsing import parse_record
from clickstream_assets.ingest.rejected import Selection, newest_rejected
from clickstream_assets.settings import EventDialect, Settings
from clickstream_assets.stores.lake import Lake
from clickstream_assets.streaming.source import valid_batches
from clickstream_assets_tests.analytics.records import ARRIVED, RULES, VIEW, encode, money, raw_table
from clickstream_assets_tests.ingest.dialects import writers

HERE = Path(__file__).parent
NOW = int(ARRIVED.timestamp() * 1_000_000) + 10**12
CASES = ("segment", "ga4", "shopify", "snowplow")


def records_of(dialect: str) -> list[bytes]:
    return (HERE / f"{dialect}.jsonl").read_bytes().splitlines()


def found(*records: Any, rules: ValidationRules = RULES) -> list[Any]:
    """Events and rejections of records, bytes or what is to be JSON."""
    values = (record if isinstance(record, bytes) else encode(record) for record in records)
    return [one for value in values for one in parse_record(value, NOW, rules)]


def one_of(record: Any, rules: ValidationRules = RULES) -> Any:
    (event,) = found(record, rules=rules)
    assert not isinstance(event, Rejection), event.args
    return event


def raw(values: list[bytes]) -> pa.Table:
    """Raw records that came after all that they tell of."""
    table = raw_table(values)
    times = pa.array([ARRIVED + timedelta(days=10)] * len(values), table.schema.field("kafka_time").type)
    return table.set_column(
        table.schema.get_field_index("kafka_time"), table.schema.field("kafka_time"), times
    )


def kinds(events: list[Any]) -> Counter[str]:
    return Counter(event.event_type for event in events)


def gross(events: list[Any], kind: str = "purchase") -> Decimal:
    return sum(event.price * (event.quantity or 1) for event in events if event.event_type == kind)


def rule_of(record: Any, rules: ValidationRules = RULES) -> tuple[str | None, str]:
    (rejection,) = found(record, rules=rules)
    assert isinstance(rejection, Rejection)
    return rejection.field, rejection.rule


def test_segments_calls_are_the_events_that_they_say():
    events = found(*records_of("segment"))
    assert kinds(events) == Counter(
        page_view=1,
        search=1,
        view=1,
        add_to_cart=2,
        identify=1,
        begin_checkout=1,
        purchase=4,
        refund=1,
        add_to_wishlist=1,
    )
    # The order was sent twice, by one id.
    purchases = {event.event_id: event for event in events if event.event_type == "purchase"}
    assert sorted(purchases) == ["m-07-1", "m-07-2"]
    assert gross(list(purchases.values())) == 65
    assert gross(events, "refund") == Decimal("12.5")
    assert {event.currency for event in purchases.values()} == {"EUR"}
    assert {event.order_id for event in purchases.values()} == {"O-1"}
    assert {event.anonymous_id for event in events} == {"anon-7c1"}
    assert [event.user_id for event in events] == [None] * 5 + ["u-55"] * 8
    assert {event.campaign for event in events} == {"spring"}
    assert events[1].query == "löffel"
    assert (events[2].brand, events[2].product_category) == ("Nord", "Küche/Besteck")
    assert "203.0.113.7" not in "".join(event.properties or "" for event in events)


def test_ga4s_rows_are_the_events_that_they_say():
    events = found(*records_of("ga4"))
    purchases = [event for event in events if event.event_type == "purchase"]
    assert gross(events) == Decimal("131.50")
    assert gross(events, "refund") == 20
    assert [event.order_id for event in purchases] == ["T-1", "T-1", None, None]
    assert len({event.anonymous_id for event in purchases}) == 3
    assert {event.currency for event in purchases} == {"USD"}
    assert kinds(events) == Counter(
        custom=1,
        page_view=2,
        impression=2,
        click=1,
        view=1,
        add_to_cart=1,
        begin_checkout=1,
        purchase=4,
        refund=1,
    )
    assert {event.product_category for event in purchases} == {"Apparel.Shirts"}
    assert (events[0].event_name, events[0].session_id, events[0].consent) == ("session_start", "77", True)
    assert events[0].event_time == 1_714_644_000_000_000


def test_shopifys_pixel_events_are_the_events_that_they_say():
    events = found(*records_of("shopify"))
    assert kinds(events) == Counter(
        page_view=1,
        impression=2,
        view=1,
        search=1,
        add_to_cart=1,
        remove_from_cart=1,
        begin_checkout=1,
        purchase=2,
    )
    assert gross(events) == 35
    assert [event.quantity for event in events if "cart" in event.event_type] == [2, 1]
    lines = [event for event in events if event.event_type == "purchase"]
    assert {(line.order_id, line.user_id, line.anonymous_id, line.currency) for line in lines} == {
        ("5001", "8001", "cl-1", "EUR")
    }
    assert [line.product_id for line in lines] == ["91", "92"]
    assert {event.campaign for event in events} == {"spring"}


def test_snowplows_events_are_the_events_that_they_say():
    events = found(*records_of("snowplow"))
    assert kinds(events) == Counter(impression=2, view=1, add_to_cart=2, purchase=4, refund=1)
    # The last two are those of a page that was loaded again.
    assert gross(events[:7]) == Decimal("25.20")
    assert {event.order_id for event in events if event.event_type == "purchase"} == {"T7"}
    assert gross(events, "refund") == 12
    assert {(event.anonymous_id, event.session_id, event.campaign) for event in events} == {
        ("d-1", "ds-1", "spring")
    }


@pytest.mark.slow
def test_a_topic_of_all_dialects_is_ingested_with_own_records_in_between(
    duckdb_engine: DuckDBEngine, tmp_path: Path
):
    columns = [records_of(dialect) for dialect in CASES]
    mixed = [
        value
        for number in range(max(map(len, columns)))
        for value in (
            encode({**VIEW, "event_id": f"own{number}"}),
            *(c[number] for c in columns if number < len(c)),
        )
    ]
    broken = (
        records_of("segment")[7].replace(b'"price": 40', b'"price": "forty"').replace(b'"m-07"', b'"m-99"')
    )
    lake = Lake(str(tmp_path), duckdb_engine)
    lake.append_batch(RAW_EVENTS, duckdb_engine.from_arrow(raw([*mixed, broken])), 1)
    counts = classify_records(lake, ValidationRules.of(Settings(_env_file=None, lake_path=str(tmp_path))))
    # Of the broken order the other line repeats, under another id, the line that is there.
    assert (counts["rejected"], counts["other_payload"]) == (1, 0)
    # The order that Segment sent twice; the one that a page sent Snowplow twice.
    assert (counts["same_event"], counts["same_order_line"]) == (2, 2)
    rows = duckdb_engine.to_arrow(lake.read(EVENTS)).to_pylist()
    revenue = Counter[str]()
    for row in rows:
        if row["event_type"] == "purchase":
            revenue[row["order_id"] or "none"] += row["price"] * row["quantity"]
    expected = {"T-1": "70.50", "none": "61.00", "5001": "35.00", "T7": "25.20"}
    # The line that was left of the broken order is of the same time as the first, so it is another line.
    assert revenue == {name: money(amount) for name, amount in {**expected, "O-1": "90.00"}.items()}
    assert sum(row["event_id"].startswith("own") for row in rows) == max(map(len, columns))
    (rejected,) = newest_rejected(lake, Selection(), 5)
    assert rejected["value"] == broken
    assert (rejected["field"], rejected["rule"], rejected["rejected_value"]) == (
        "price",
        "not_a_number",
        "forty",
    )
    assert (rejected["item"], rejected["items"]) == (2, 2)
    assert REJECTED_EVENTS.column_names == list(rejected)


@pytest.mark.slow
def test_the_stream_reads_every_dialect_as_the_ingest_does():
    values = [value for dialect in CASES for value in records_of(dialect)]
    streamed = [
        event_id
        for batch in valid_batches(iter(raw(values).to_batches()), RULES, ("event_id",))
        for event_id in batch["event_id"].to_pylist()
    ]
    assert streamed == [event.event_id for event in found(*values)]


def test_the_stream_leaves_out_records_that_were_erased():
    values = [encode(VIEW | {"event_id": f"e{number}"}) for number in range(4)]
    erased = {("events", 0): pa.array([1, 3]), ("events", 1): pa.array([0]), ("others", 0): pa.array([2])}
    batches = valid_batches(iter(raw_table(values).to_batches()), RULES, ("event_id",), erased)
    assert [event_id for batch in batches for event_id in batch["event_id"].to_pylist()] == ["e0", "e2"]


COMPARED = (
    *("event_type", "event_time", "user_id", "anonymous_id", "session_id", "event_name", "product_id"),
    *("product_category", "brand", "price", "currency", "quantity", "order_id", "query", "user_agent"),
    *("campaign", "consent"),
)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("form", list(writers.WRITERS))
def test_one_shop_in_each_dialect_is_the_same_events_but_for_what_it_cannot_say(form: str, seed: int):
    dialect = form.partition("_")[0]
    types, fields = writers.CANNOT_SAY[dialect]
    shop = [one for one in writers.happenings(seed) if one["event_type"] not in types]
    expected = [shown(event, fields) for event in found(*map(writers.own, shop))]
    if dialect == "shopify":
        # Which names a user in an order alone.
        expected = [one if one["event_type"] == "purchase" else one | {"user_id": None} for one in expected]
    events = found(*map(writers.WRITERS[form], shop))
    assert [shown(event, fields) for event in events] == expected
    assert len({event.event_id for event in events}) == len(events)
    assert not [event.field_problems for event in events if event.field_problems]
    assert kinds(events).keys() == set(EVENT_TYPES) - types
    # And by the setting, whatever their shape is.
    rules = ValidationRules.of(Settings(_env_file=None, event_dialect=EventDialect(dialect)))
    assert found(*map(writers.WRITERS[form], shop), rules=rules) == events


def shown(event: Any, without: set[str]) -> dict[str, Any]:
    assert not isinstance(event, Rejection), event.args
    return {name: getattr(event, name) for name in COMPARED if name not in without}


ORDER = msgspec.json.decode(records_of("segment")[7])
ROW = msgspec.json.decode(records_of("ga4")[8])
CHECKOUT = msgspec.json.decode(records_of("shopify")[7])
TRANSACTION = msgspec.json.decode(records_of("snowplow")[3])
P1 = {"product_id": "P-1", "price": "12.50", "quantity": "2"}


def order(**properties: Any) -> dict[str, Any]:
    return {**ORDER, "properties": {**ORDER["properties"], **properties}}


def checkout(**fields: Any) -> dict[str, Any]:
    return {**CHECKOUT, "data": {"checkout": {**CHECKOUT["data"]["checkout"], **fields}}}


@pytest.mark.parametrize(
    ("record", "lines"),
    [
        (order(products=[P1]), [("P-1", money("12.5"), 2)]),
        (order(products=P1), [("P-1", money("12.5"), 2)]),
        (order(products=[{"sku": 17, "price": 3}]), [("17", money("3"), None)]),
        (order(products=None, **P1), [("P-1", money("12.5"), 2)]),
        ({**order(products=[P1]), "event": "order_completed"}, [("P-1", money("12.5"), 2)]),
        ({**order(products=[P1]), "event": "ORDER COMPLETED", "type": "Track"}, [("P-1", money("12.5"), 2)]),
        ({**order(products=[{"id": 5, "price": 1}]), "event": "Completed Order"}, [("5", money("1"), None)]),
        ({**ROW, "items": ROW["items"][0]}, [("G1", money("20"), 2)]),
        (
            {**ROW, "items": [{"item_id": "(not set)", "item_name": "Hat", "price": "9"}]},
            [("Hat", money("9"), None)],
        ),
        ({**ROW, "items": [{"item_id": 3, "price": None, "price_in_usd": 4}]}, [("3", money("4"), None)]),
        (
            checkout(lineItems={"quantity": "3", "title": "Gift", "finalLinePrice": {"amount": "30.00"}}),
            [("Gift", money("10"), 3)],
        ),
        (
            checkout(lineItems=[{"quantity": None, "variant": {"id": 41, "price": {"amount": "7"}}}]),
            [("41", money("7"), None)],
        ),
        (
            {
                **TRANSACTION,
                "contexts_com_snowplowanalytics_snowplow_ecommerce_product_1": '[{"id": 7, "price": "2.5"}]',
            },
            [("7", money("2.5"), None)],
        ),
        (
            {
                **{"event": "transaction_item", "event_id": "e", "domain_userid": "d", "ti_orderid": "T7"},
                **{
                    "collector_tstamp": "2024-05-02 10:00:00.000",
                    "ti_sku": "S",
                    "ti_price": "3",
                    "ti_quantity": 2,
                },
            },
            [("S", money("3"), 2)],
        ),
    ],
)
def test_an_order_is_read_however_its_lines_are_written(record: Any, lines: list[Any]):
    events = found(record)
    assert [(event.product_id, event.price, event.quantity) for event in events] == lines
    assert {event.event_type for event in events} == {"purchase"}
    assert {event.order_id for event in events} <= {"O-1", "T-1", "5001", "T7"}


@pytest.mark.parametrize(
    ("record", "field", "rule"),
    [
        (order(products=[]), "product_id", "missing"),
        (order(products=[None]), "product_id", "missing"),
        (order(products="none"), "product_id", "missing"),
        (order(products=[{"product_id": "P", "price": {"a": 1}}]), "price", "wrong_type"),
        ({**order(products=[P1]), "timestamp": "soon"}, "timestamp", "not_iso_8601"),
        ({**order(products=[P1]), "userId": None, "anonymousId": "undefined"}, "user_id", "missing"),
        ({"type": "track", "messageId": "m"}, "event_type", "missing"),
        ({**ROW, "items": [], "event_params": None}, "product_id", "missing"),
        (
            {**ROW, "user_id": None, "user_pseudo_id": None, "event_params": [], "items": [{}]},
            "user_id",
            "missing",
        ),
        (checkout(lineItems=None), "product_id", "missing"),
        (
            {"derived_tstamp": None, "event": "page_view", "event_id": "e", "user_id": "u"},
            "timestamp",
            "missing",
        ),
        ({**TRANSACTION, "contexts": "{"}, None, "not_json"),
        # Of nobody's dialect: an own record that lacks its type.
        (
            {"type": "page", "user_id": "u", "timestamp": "2024-05-01T10:00:00Z", "name": "n"},
            "event_type",
            "missing",
        ),
    ],
)
def test_what_a_record_of_a_dialect_lacks_is_said_as_of_an_own_record(
    record: Any, field: str | None, rule: str
):
    assert rule_of(record) == (field, rule)


@pytest.mark.parametrize("form", [form for form in writers.WRITERS if form != "snowplow_tsv"])
def test_nulls_anywhere_stop_nothing(form: str):
    """Each value of each record in turn is null, or a text where an object was."""
    dialect = form.partition("_")[0]
    cannot_say, _ = writers.CANNOT_SAY[dialect]
    written = [
        writers.WRITERS[form](happened)
        for happened in writers.happenings(1, 20)
        if happened["event_type"] not in cannot_say
    ]

    def replaced(value: Any, by: Any) -> list[Any]:
        if isinstance(value, dict):
            parts = [(name, one) for name, one in value.items()]
            return [by, *({**value, name: other} for name, one in parts for other in replaced(one, by))]
        if isinstance(value, list):
            return [
                by,
                [],
                *([*value[:n], other] for n, one in enumerate(value) for other in replaced(one, by)),
            ]
        return [by]

    for value in (*records_of(dialect), *written):
        for by in (None, "x", [1], {"y": [None]}, True, 10**30):
            for record in replaced(msgspec.json.decode(value), by)[1:]:
                assert all(
                    one.rule != "not_json" if isinstance(one, Rejection) else one.event_id
                    for one in found(record)
                )


def test_a_request_of_several_calls_is_a_record_of_several_items():
    first, second = (msgspec.json.decode(value) for value in records_of("segment")[2:4])
    for name in ("context", "timestamp", "originalTimestamp", "sentAt", "receivedAt"):
        del second[name]
    batch = {
        "batch": [first, second, None],
        "sentAt": "2024-05-02T10:30:00Z",
        "context": {"campaign": {"name": "b"}},
    }
    view, cart, nothing = found(batch)
    assert [view.event_id, cart.event_id] == ["m-02", "m-03"]
    assert (view.campaign, cart.campaign) == ("spring", "b")
    assert cart.event_time == 1_714_645_800_000_000
    assert (nothing.field, nothing.rule) == ("event_type", "missing")


def test_segments_calls_with_underscores_are_the_same_calls():
    names = {
        **{"messageId": "message_id", "anonymousId": "anonymous_id", "userId": "user_id"},
        **{"originalTimestamp": "original_timestamp", "sentAt": "sent_at", "receivedAt": "received_at"},
    }
    for value in records_of("segment"):
        record = msgspec.json.decode(value)
        renamed = {names.get(name, name): given for name, given in record.items()}
        if "userAgent" in (context := renamed.get("context") or {}):
            renamed["context"] = {**context, "user_agent": context["userAgent"]}
            del renamed["context"]["userAgent"]
        if not {"previousId", "batch"} & record.keys():
            assert found(renamed) == found(value)


def test_posthogs_events_are_segments_with_other_fields_around():
    common = {"uuid": "p-1", "timestamp": "2024-05-02T10:00:00Z", "distinct_id": "dev"}
    viewed = one_of(
        {
            **common,
            "event": "Product Viewed",
            "properties": {
                **{
                    "$device_id": "dev",
                    "$session_id": "s",
                    "$raw_user_agent": "UA",
                    "utm_campaign": "spring",
                },
                **{"product_id": "P", "price": 3, "$ip": "203.0.113.7"},
            },
        }
    )
    assert (viewed.event_type, viewed.product_id, viewed.anonymous_id, viewed.user_id) == (
        "view",
        "P",
        "dev",
        None,
    )
    assert (viewed.event_id, viewed.session_id, viewed.campaign, viewed.user_agent) == (
        "p-1",
        "s",
        "spring",
        "UA",
    )
    tied = one_of(
        {**common, "event": "$identify", "distinct_id": "u", "properties": {"$anon_distinct_id": "dev"}}
    )
    assert (tied.event_type, tied.user_id, tied.anonymous_id) == ("identify", "u", "dev")
    page = one_of({**common, "event": "$pageview", "properties": '{"$device_id":"dev"}'})
    assert page.event_type == "page_view"
    exported = '{"order_id":"o","product_id":"P","price":19.99,"total":1e9999999999999999999}'
    bought = one_of({**common, "event": "Order Completed", "properties": exported})
    assert (bought.event_type, bought.order_id, bought.price) == ("purchase", "o", money("19.99"))
    server = one_of({**common, "event": "Order Completed", "properties": {"order_id": "o", "products": [P1]}})
    assert (server.user_id, server.order_id, server.price) == ("dev", "o", money("12.5"))


def test_an_order_that_is_given_back_whole_has_its_total():
    for name in ("Order Refunded", "Order Cancelled"):
        refund = one_of({**order(products=None, total=70), "event": name})
        assert (refund.event_type, refund.price, refund.order_id) == ("refund", money("70"), "O-1")
    row = {
        **ROW,
        "event_name": "refund",
        "items": [],
        "ecommerce": {"transaction_id": "T-1", "refund_value": 70.5},
    }
    assert one_of(row).price == money("70.5")
    record = {**TRANSACTION, "contexts_com_snowplowanalytics_snowplow_ecommerce_product_1": None}
    record["unstruct_event_com_snowplowanalytics_snowplow_ecommerce_snowplow_ecommerce_action_1"] = {
        "type": "refund"
    }
    entity = "contexts_com_snowplowanalytics_snowplow_ecommerce_refund_1_0_0"
    refund = one_of({**record, entity: [{"transaction_id": "T9", "refund_amount": 4}]})
    assert (refund.event_type, refund.price, refund.order_id) == ("refund", money("4"), "T9")


def test_shopifys_ids_are_one_however_they_are_written():
    variant = {"id": 41, "product": {"id": "gid://shopify/Product/91?key=a"}, "price": {"amount": 1}}
    order = {"id": "gid://shopify/OrderIdentity/5001", "customer": {"id": 8001}}
    event = one_of(checkout(order=order, lineItems=[{"id": 9, "quantity": 1, "variant": variant}]))
    assert (event.product_id, event.order_id, event.user_id) == ("91", "5001", "8001")
    assert one_of(checkout(order=None, lineItems=[{"variant": variant}])).order_id == "tk1"


def test_an_app_that_snowplow_tracks_is_known_by_its_client_session():
    record = {
        key: value for key, value in TRANSACTION.items() if key not in ("domain_userid", "domain_sessionid")
    }
    for session in ({"userId": "app-1", "sessionId": "s-1"}, {"user_id": "app-1", "session_id": "s-1"}):
        entity = "contexts_com_snowplowanalytics_snowplow_client_session_1_0_2"
        events = found({**record, entity: [session]})
        assert {(event.anonymous_id, event.session_id) for event in events} == {("app-1", "s-1")}


def test_snowplows_clock_is_utcs_wherever_the_shop_is():
    rules = ValidationRules.of(Settings(_env_file=None, shop_time_zone="Asia/Tokyo"))
    events = [
        found({**TRANSACTION, "derived_tstamp": text}, rules=rules)[0].event_time
        for text in ("2024-05-02 10:00:30", "2024-05-02T10:00:30.000Z", "2024-05-02 10:00:30 UTC")
    ]
    assert set(events) == {1_714_644_030_000_000}


def test_a_page_ping_is_an_event_that_keeps_the_visit_and_no_page_view():
    ping = {"event": "page_ping", "event_name": "page_ping", "event_id": "e", "domain_userid": "d"}
    event = one_of({**ping, "collector_tstamp": "2024-05-02 10:00:00"})
    assert (event.event_type, event.event_name) == ("custom", "page_ping")


def test_a_row_of_the_export_has_an_id_where_it_can_have_one():
    row = {**ROW, "batch_event_index": 3, "items": ROW["items"][:1]}
    assert one_of(row).event_id == "1111.2222-1714644060000000-purchase-3-1"
    # From before there was an index: what has the same content is the same.
    old = one_of({**ROW, "items": ROW["items"][:1]})
    assert old.event_id == old.payload_hash


LIBRARY = {
    "uuid": "p-1",
    "timestamp": "2024-05-02T10:00:00Z",
    "event": "$autocapture",
    "distinct_id": "made-up",
}


@pytest.mark.parametrize(
    ("changes", "properties", "user", "visitor"),
    [
        # A visitor whom nobody named, whose device has another id than the visitor, as after a logout.
        (
            *({}, {"$device_id": "d", "$is_identified": False, "$process_person_profile": False}),
            *(None, "made-up"),
        ),
        ({}, {"$device_id": "d", "$is_identified": False}, None, "made-up"),
        ({}, {"$device_id": "d", "$process_person_profile": False}, None, "made-up"),
        ({}, {"$is_identified": False, "$process_person_profile": True}, None, "made-up"),
        ({}, {"$process_person_profile": False}, None, "made-up"),
        ({}, {"$device_id": "made-up"}, None, "made-up"),
        # A user, whatever the shop keeps of them.
        ({"distinct_id": "u"}, {"$device_id": "d", "$is_identified": True}, "u", "d"),
        (
            *(
                {"distinct_id": "u"},
                {"$device_id": "d", "$is_identified": True, "$process_person_profile": False},
            ),
            *("u", "d"),
        ),
        ({"distinct_id": "u"}, {"$device_id": "d", "$process_person_profile": True}, "u", "d"),
        ({"distinct_id": "u"}, {}, "u", None),
        ({}, {"$user_id": "u", "$device_id": "d", "$is_identified": False}, "u", "made-up"),
        # The events that tie the two.
        (
            *(
                {"event": "$identify", "distinct_id": "u"},
                {"$anon_distinct_id": "made-up", "$is_identified": False},
            ),
            *("u", "made-up"),
        ),
        (
            *({"event": "$create_alias"}, {"alias": "u", "$device_id": "d", "$is_identified": False}),
            *("u", "made-up"),
        ),
        ({"event": "$create_alias", "distinct_id": "u"}, {"alias": "before"}, "u", "before"),
    ],
)
def test_a_visitor_whom_posthog_does_not_know_is_no_user(
    changes: dict[str, Any], properties: dict[str, Any], user: str | None, visitor: str | None
):
    event = one_of({**LIBRARY, **changes, "properties": properties})
    assert (event.user_id, event.anonymous_id) == (user, visitor)
    as_text = one_of({**LIBRARY, **changes, "properties": encode(properties).decode()})
    assert as_text == event


@pytest.mark.parametrize("visitor", [None, "", "(not set)", "null", "undefined"])
def test_ga4s_session_is_nobodys_visitor(visitor: str | None):
    """Strangers whose visits begin in one second have one `ga_session_id`."""
    row = {**ROW, "user_id": None, "user_pseudo_id": visitor, "event_name": "page_view"}
    session = [{"key": "ga_session_id", "value": {"int_value": "1714644000"}}]
    assert rule_of({**row, "event_params": session}) == ("user_id", "missing")
    del row["event_params"]
    assert rule_of({**row, "ga_session_id": "1714644000", "session_id": "s"}) == ("user_id", "missing")
    known = one_of({**row, "event_params": session, "user_id": "u-1"})
    assert (known.user_id, known.anonymous_id, known.session_id) == ("u-1", None, "1714644000")
    # The sessions of others are theirs alone.
    call = {"type": "page", "messageId": "m", "timestamp": "2024-05-02T10:00:00Z", "anonymousId": visitor}
    assert one_of({**call, "context": {"sessionId": "s-1"}}).session_id == "s-1"


@pytest.mark.parametrize(
    ("columns", "parameter", "campaign"),
    [
        ({}, "spring", "spring"),
        ({"collected_traffic_source": None}, "spring", "spring"),
        ({"collected_traffic_source": {"manual_campaign_name": "(direct)"}}, "spring", "spring"),
        ({"collected_traffic_source": {"manual_campaign_name": "autumn"}}, "spring", "autumn"),
        (
            *({"session_traffic_source_last_click": {"manual_campaign": {"campaign_name": "winter"}}}, None),
            "winter",
        ),
        (
            {
                "session_traffic_source_last_click": {
                    "manual_campaign": {"campaign_name": "(not set)"},
                    "google_ads_campaign": {"campaign_name": "shoes"},
                }
            },
            *(None, "shoes"),
        ),
        *(({}, none, None) for none in ("(direct)", "(not set)", "(organic)", "<Other>", "", None)),
        # Which brought somebody the first time, not this time.
        ({"traffic_source": {"name": "first"}}, None, None),
    ],
)
def test_ga4s_campaign_is_read_wherever_an_export_has_it(
    columns: dict[str, Any], parameter: str | None, campaign: str | None
):
    row = {name: value for name, value in ROW.items() if "traffic_source" not in name}
    sent = [
        {"key": "campaign", "value": {"string_value": parameter}},
        {"key": "medium", "value": {"string_value": "email"}},
    ]
    event = one_of({**row, "event_name": "page_view", "event_params": sent, **columns})
    assert event.campaign == campaign
    left = msgspec.json.decode(event.properties)
    assert left["medium"] == "email"
    assert "campaign" not in left


BOUGHT = [{"product_id": "P-1", "name": "Lamp", "price": 5}, {"product_id": "P-2", "name": "Pot", "price": 7}]
ITEMS = [{"item_id": "P-1", "item_name": "Lamp", "price": 5}, {"item_id": "P-2", "price": 7}]
LINES = [{"id": "1", "title": "Lamp", "quantity": 1}, {"id": "2", "title": "Pot", "quantity": 2}]
ENTITY = "com_snowplowanalytics_snowplow_ecommerce_product"
STEP = "contexts_com_snowplowanalytics_snowplow_ecommerce_checkout_step_1"
ACTION = "unstruct_event_com_snowplowanalytics_snowplow_ecommerce_snowplow_ecommerce_action_1"


@pytest.mark.parametrize(
    ("record", "event_type", "path", "products"),
    [
        *(
            ({**order(products=BOUGHT), "event": name}, kind, ("products",), BOUGHT)
            for name, kind in (
                ("Checkout Started", "begin_checkout"),
                ("Payment Info Entered", "custom"),
                ("Cart Viewed", "page_view"),
            )
        ),
        *(
            ({**ROW, "event_name": name, "items": ITEMS}, kind, ("items",), ITEMS)
            for name, kind in (
                ("begin_checkout", "begin_checkout"),
                ("add_shipping_info", "custom"),
                ("view_cart", "page_view"),
                ("view_search_results", "search"),
            )
        ),
        *(
            ({**checkout(lineItems=LINES), "name": name}, kind, ("checkout", "lineItems"), LINES)
            for name, kind in (("checkout_started", "begin_checkout"), ("payment_info_submitted", "custom"))
        ),
        (
            *({**CHECKOUT, "name": "cart_viewed", "data": {"cart": {"lines": LINES}}}, "page_view"),
            *(("cart", "lines"), LINES),
        ),
        *(
            (
                {
                    **TRANSACTION,
                    **{ACTION: {"type": "checkout_step"}, STEP: [{"step": step}]},
                    f"contexts_{ENTITY}_1": [{"id": "P-1", "price": 5}],
                },
                *(kind, (ENTITY,), [{"id": "P-1", "price": 5}]),
            )
            for step, kind in ((1, "begin_checkout"), (2, "custom"))
        ),
    ],
)
def test_products_of_an_event_that_is_not_one_for_each_are_kept_with_it(
    record: Any, event_type: str, path: tuple[str, ...], products: list[Any]
):
    event = one_of(record)
    assert event.event_type == event_type
    value = msgspec.json.decode(event.properties)
    for name in path:
        value = value[name]
    assert value == products


def test_products_that_are_events_are_in_no_properties_beside_them():
    records = (order(products=BOUGHT), {**ROW, "items": ITEMS}, checkout(lineItems=LINES), TRANSACTION)
    for record in records:
        events = found(record)
        assert len(events) == 2
        for event in events:
            left = msgspec.json.decode(event.properties or "{}")
            assert not {"products", "items", "lineItems", ENTITY} & {*left, *left.get("checkout", {})}


@pytest.mark.parametrize(
    "record",
    [
        {**ROW, "event_name": "page_view", "event_timestamp": "2024-05-02 10:00:30"},
        {**ROW, "event_name": "page_view", "event_timestamp": "2024-05-02 10:00:30.000000 UTC"},
        {**ROW, "event_name": "page_view", "event_timestamp": "2024-05-02T12:00:30+02:00"},
        {**ROW, "event_name": "page_view", "event_timestamp": " 2024-05-02 10:00:30 "},
        {**ROW, "event_name": "page_view", "event_timestamp": "20240502T100030"},
        {**ROW, "event_name": "page_view", "event_timestamp": "1714644030000000"},
        {**ROW, "event_name": "page_view", "event_timestamp": 1_714_644_030_000_000},
        {**ROW, "event_name": "page_view", "event_timestamp": "1.71464403e15"},
        {**ORDER, "event": "x", "timestamp": "2024-05-02 10:00:30.000"},
        {"event": "x", "message_id": "m", "user_id": "u", "timestamp": "2024-05-02 10:00:30"},
        {"event": "x", "message_id": "m", "user_id": "u", "received_at": "2024-05-02 10:00:30+00"},
        {**LIBRARY, "timestamp": "2024-05-02 10:00:30.000000"},
    ],
)
def test_a_time_without_a_zone_is_utcs_where_the_senders_clock_is(record: Any):
    rules = ValidationRules.of(Settings(_env_file=None, shop_time_zone="Asia/Tokyo"))
    (event,) = found(record, rules=rules)
    assert event.event_time == 1_714_644_030_000_000
    day = {**record, **{name: "2024-05-02" for name in record if "time" in name or name == "received_at"}}
    assert rule_of(day, rules)[1] == NO_TIME_OF_DAY


NOTHING = {"a": None, "b": "", "c": [], "d": {}, "e": "(not set)", "f": {"g": None}, "h": [None, {"i": ""}]}
SOMETHING = {
    "zero": 0,
    "no": False,
    "list": [None, 1, {"a": ""}],
    "rate": 0.5,
    "deep": {"kept": "x", "a": None},
}
WITHOUT = {"zero": 0, "no": False, "list": [None, 1, {}], "rate": 0.5, "deep": {"kept": "x"}}


@pytest.mark.parametrize("given", [{}, SOMETHING])
def test_what_is_empty_is_no_property(given: dict[str, Any]):
    sent = {**NOTHING, **given}
    lines = [{**P1, **sent}]
    item = {"item_id": "P-1", "price": 5, "coupon": "(not set)", **sent}
    parameters = {name: {"string_value": value} for name, value in sent.items()}
    row = {**ROW, "device": None, "geo": {"city": "(not set)"}}
    entity = "contexts_com_example_{}_1"
    records = [
        {**ORDER, "event": "x", "properties": sent, "context": {"page": NOTHING}},
        {**ORDER, "properties": {"products": lines}, "context": {}},
        {**LIBRARY, "properties": sent},
        {**row, "items": [item], "event_params": []},
        {**row, "event_name": "x", "items": [], "event_params": parameters},
        {**CHECKOUT, "name": "x", "data": sent, "customData": NOTHING},
        {
            **{name: value for name, value in TRANSACTION.items() if "_com_" not in name},
            **{"event": "struct", "se_action": "x", "contexts_com_example_empty_1": []},
            entity.format("own"): [{**sent, "id": "i"}],
        },
        {"product_id": "P", "user_id": "u", "view_time": 1, "ts": 1_714_644_030_000, **sent},
    ]
    kept = WITHOUT if given else None
    named = kept or {}
    expected = [kept] * 6 + [{"com_example_own": [named | {"id": "i"}]}, named | {"view_time": 1}]
    properties = [one_of(record).properties for record in records]
    assert [text and msgspec.json.decode(text) for text in properties] == expected


def test_a_visitor_without_another_id_is_known_by_the_collectors_cookie():
    record = {**TRANSACTION, "user_id": None, "domain_userid": None, "network_userid": "n-1"}
    for user, own, expected in (
        (None, None, (None, "n-1")),
        ("u", None, ("u", None)),
        (None, "d", (None, "d")),
    ):
        events = found({**record, "user_id": user, "domain_userid": own})
        assert {(event.user_id, event.anonymous_id) for event in events} == {expected}
    session = "contexts_com_snowplowanalytics_snowplow_client_session_1_0_2"
    assert {event.anonymous_id for event in found({**record, session: [{"userId": "app-1"}]})} == {"app-1"}
    columns = [""] * 131
    for name, value in (("event", "page_view"), ("event_id", "e"), ("network_userid", "n-1")):
        columns[PLACES[name]] = value
    columns[PLACES["collector_tstamp"]] = "2024-05-02 10:00:00"
    assert one_of("\t".join(columns).encode()).anonymous_id == "n-1"
    # What the collector writes where it is told to know nobody.
    columns[PLACES["network_userid"]] = "00000000-0000-0000-0000-000000000000"
    assert rule_of("\t".join(columns).encode()) == ("user_id", "missing")


def test_what_a_shop_calls_a_variant_is_kept_with_its_product():
    variant = {
        **{"id": "gid://shopify/ProductVariant/41", "sku": "L-41", "title": "Blue", "price": {"amount": 1}},
        "product": {"id": "91", "title": "Lamp"},
    }
    named = {"variant_id": "41", "sku": "L-41", "variant_title": "Blue", "product_title": "Lamp"}
    data = (
        ("checkout_completed", {"checkout": {"lineItems": [{"variant": variant, "title": "Lamp"}]}}),
        ("collection_viewed", {"collection": {"productVariants": [variant]}}),
        ("product_viewed", {"productVariant": variant}),
        ("product_added_to_cart", {"cartLine": {"merchandise": variant, "quantity": 1}}),
    )
    for name, sent in data:
        event = one_of({**CHECKOUT, "name": name, "data": sent})
        assert (event.product_id, msgspec.json.decode(event.properties)) == ("91", named)
    typed = one_of(checkout(lineItems=[{"title": "Gift", "variant": None}]))
    assert (typed.product_id, msgspec.json.decode(typed.properties)["product_title"]) == ("Gift", "Gift")
    # As Segment's lines keep theirs.
    line = one_of(order(products=[{**P1, "sku": "L-41", "name": "Lamp"}]))
    left = msgspec.json.decode(line.properties)
    assert (left["sku"], left["name"]) == ("L-41", "Lamp")


def test_an_own_record_is_never_taken_for_another_dialects():
    foreign = {**ORDER, **ROW, **CHECKOUT, **TRANSACTION, "batch": [ORDER], "distinct_id": "x", "items": None}
    event = one_of({**foreign, **VIEW})
    assert (event.event_type, event.user_id, event.product_id) == ("view", "u1", "p1")
    own = ValidationRules.of(Settings(_env_file=None, event_dialect=EventDialect.OWN))
    assert rule_of(ORDER, own) == ("event_type", "missing")


def test_the_header_of_a_schema_registry_is_passed_over():
    header = b"\x00\x00\x00\x00\x11"
    assert one_of(header + encode(VIEW)) == one_of(VIEW)
    assert found(header + b" " + records_of("ga4")[9]) == found(records_of("ga4")[9])


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        # A text of length 4 and the number 3, as a record of Avro and as fields 1 and 2 of a message.
        (b"\x00\x00\x00\x00\x07\x08view\x06", "avro"),
        (b"\x00\x00\x00\x00\x07\x00\x0a\x04view\x10\x06", "protobuf"),
        (b"\x00\x00\x00\x00\x07\x02\x02\x0a\x04view\x10\x06", "protobuf"),
        (b"\x0a\x04view\x10\x06", "protobuf"),
        (b"Obj\x01\x04\x14avro.codec", "avro"),
        (b"\xc3\x01" + b"12345678" + b"\x08view", "avro"),
        (b"\x00\x00", "not_json"),
        (b"view", "not_json"),
        (b"", "not_json"),
    ],
)
def test_avro_and_protobuf_are_rejected_by_their_names(value: bytes, rule: str):
    assert rule_of(value) == (None, rule)


def test_the_tsv_of_what_is_no_text_is_rejected():
    assert rule_of(b"\xff" + b"\t" * 130) == (None, "not_utf8")
    # A tab more or less is no enriched event.
    assert rule_of(b"web" + b"\t" * 20) == (None, "not_json")
