"""Pages: what they show is what the API answers; of what there is not they say so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, timedelta
from html import unescape
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest
from flask.testing import FlaskClient

from clickstream_assets.api.pages.rendering import PAGES
from clickstream_assets.settings import Settings
from clickstream_assets_tests.api.conftest import STRANGE_USERS, clients_of
from clickstream_assets_tests.api.shop import DAY, REPORT_DAY, STRANGE_PRODUCTS
from clickstream_assets_tests.databases import fresh_database, with_settings

ALL = [
    *PAGES,
    "/products/p1",
    "/trends?by=category",
    "/trends?by=campaign",
    "/trends?by=segment",
    "/funnel?by=segment",
    "/recommendations?person=u1",
    f"/reports/{REPORT_DAY}",
]
ENGLISH = {"Accept-Language": "en-GB"}
NOTHING = "\N{EN DASH}"


class Tables(HTMLParser):
    """The tables of a page: their rows of cells, by the id of the chart or of the heading that names them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.by_id: dict[str, list[list[str]]] = {}
        self.figures: dict[str, str] = {}
        self._id: str | None = None
        self._cell: str | None = None
        self._term: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        given = dict(attrs)
        if tag in ("figure", "h2") and "id" in given:
            self._id = given["id"]
            self.by_id[self._id] = []
        elif tag == "tr" and self._id:
            self.by_id[self._id].append([])
        elif tag in ("th", "td", "dt", "dd"):
            self._cell = ""

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self._cell += data

    def handle_endtag(self, tag: str) -> None:
        if self._cell is None:
            return
        text = self._cell.strip()
        if tag in ("th", "td") and self._id:
            self.by_id[self._id][-1].append(text)
        elif tag == "dt":
            self._term = text
        elif tag == "dd" and self._term:
            self.figures.setdefault(self._term, text)
        if tag in ("th", "td", "dt", "dd"):
            self._cell = None


def shown(client: FlaskClient, path: str) -> Tables:
    answer = client.get(path, headers=ENGLISH)
    assert answer.status_code == 200, answer.text
    return Tables(answer.text)


@pytest.fixture
def client_of_empty_tables(postgres: Settings) -> Iterator[FlaskClient]:
    with fresh_database(postgres) as empty:
        yield from clients_of(empty)


@pytest.mark.parametrize("path", ALL)
def test_page_names_addresses_that_answer_and_loads_nothing_from_elsewhere(client: FlaskClient, path: str):
    answer = client.get(path)
    assert answer.status_code == 200
    policy = answer.headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert re.findall(r'(?:src|href)="(?:https?:)?//', answer.text) == []
    assert (
        re.findall(r"<script(?![^>]*(?:src=|application/json))|\son\w+=|\sstyle=|<style", answer.text) == []
    )
    named = [unescape(address) for address in re.findall(r'<a href="([^"]+)"><code>', answer.text)]
    assert "/api/shop" in named or path == "/docs"
    # Live events are of the test's Elasticsearch, where there are none yet.
    answered = {address: client.get(address).status_code for address in named}
    assert {status for address, status in answered.items() if "real-time" not in address} <= {200, 404}
    for loaded in re.findall(r'(?:src|href)="(/static/[^"]+)"', answer.text):
        file = client.get(loaded)
        assert file.status_code == 200
        assert "max-age=31536000" in file.headers["Cache-Control"]


@pytest.mark.parametrize("path", ["/", "/trends", "/funnel", "/products", "/customers", "/reports"])
def test_before_the_first_day_a_page_says_what_to_do(client_of_empty_tables: FlaskClient, path: str):
    answer = client_of_empty_tables.get(path)
    assert answer.status_code == 200
    assert "There are no figures yet" in answer.text
    assert "make demo" in answer.text


@pytest.mark.parametrize("path", [path for path in ALL if path != "/docs"])
def test_without_postgresql_a_page_says_so(settings: Settings, path: str):
    for client in clients_of(with_settings(settings, postgres_port=9)):
        answer = client.get(path)
        assert answer.status_code == 503
        assert "PostgreSQL cannot be reached" in answer.text
        assert answer.text.rstrip().endswith("</html>")


def test_without_elasticsearch_only_live_events_are_missing(settings: Settings):
    for client in clients_of(with_settings(settings, elasticsearch_url="http://127.0.0.1:9")):
        answer = client.get("/")
        assert answer.status_code == 200
        assert "Elasticsearch cannot be reached" in answer.text
        [day] = client.get("/api/days?limit=1&since=2000-01-01").json["days"]
        assert Tables(answer.text).figures["Orders"] == str(day["orders"])


def test_figures_of_a_day_are_those_of_the_api(client: FlaskClient):
    [day] = client.get(f"/api/days?date={REPORT_DAY}").json["days"]
    figures = shown(client, f"/?date={REPORT_DAY}").figures
    assert figures == {
        "Revenue less refunds": f"€{day['net_revenue']:,.2f}",
        "Orders": f"{day['orders']:,}",
        "Visits that bought": f"{day['conversion_rate']:.2f}%",
        "Visits": f"{day['sessions']:,}",
        "Visitors": f"{day['users']:,}",
        "Put into carts": f"{day['add_to_carts']:,}",
    }


def test_hours_of_a_day_stand_beside_those_of_the_day_before(client: FlaskClient):
    tables = shown(client, f"/?date={DAY}").by_id
    hours = {row[0]: row[1:] for row in tables["visits"][1:]}
    # 9 and 10 on the day, 23 on the one before, 2 visits each; of the week before there is none.
    nothing = {f"{hour:02}:00": ["0", "0", NOTHING] for hour in range(9, 24)}
    assert hours == nothing | {
        "09:00": ["2", "0", NOTHING],
        "10:00": ["2", "0", NOTHING],
        "23:00": ["0", "2", NOTHING],
    }
    assert tables["visits"][0][1:] == ["31 May 2024", "The day before", "A week before"]


def test_trend_of_categories_has_the_values_of_the_days(client: FlaskClient):
    tables = shown(
        client, f"/trends?by=category&figure=views&since={DAY - timedelta(days=1)}&until={DAY}"
    ).by_id
    heading, *rows = tables["trend"]
    assert heading[1:] == ["books", "unknown", "toys"]
    assert [row[1:] for row in rows] == [["10", "0", "0"], ["30", "40", "20"]]
    assert tables["groups"][1:] == [["books", "40"], ["unknown", "40"], ["toys", "20"]]


def test_rate_of_several_days_is_that_of_their_sums(client: FlaskClient):
    tables = shown(
        client, f"/trends?by=category&figure=conversion_rate&since={DAY - timedelta(days=1)}&until={DAY}"
    ).by_id
    # 1 of 10 views and 2 of 30; 3 of 20; none of 40.
    assert tables["groups"][1:] == [["toys", "15.00%"], ["books", "7.50%"], ["unknown", "0.00%"]]
    assert [row[1:] for row in tables["trend"][1:]] == [
        [NOTHING, "10.00%", NOTHING],
        ["15.00%", "6.67%", "0.00%"],
    ]


def test_mean_of_a_segment_is_of_all_days(client: FlaskClient):
    since = f"since={DAY - timedelta(days=1)}&until={DAY}"
    tables = shown(client, f"/trends?by=segment&{since}").by_id
    heading, *rows = tables["trend"]
    newcomers = heading.index("new customer")
    assert [row[newcomers] for row in rows] == ["0", "1"]
    drawing = re.search(r'id="groups-data">(.*?)</script>', client.get(f"/trends?by=segment&{since}").text)
    assert drawing
    means = msgspec.json.decode(drawing[1])
    assert means["unit"] == "a day"
    assert dict(zip(means["labels"], means["series"][0]["values"], strict=True))["new customer"] == 0.5


@pytest.mark.parametrize(
    ("day", "alerts"), [(DAY - timedelta(days=1), 0), (DAY, 3), (DAY + timedelta(days=1), 0)]
)
def test_flash_sales_of_days_began_on_them(client: FlaskClient, day: date, alerts: int):
    rows = shown(client, f"/products?since={day}&until={day}").by_id["alerts"]
    assert len(rows[1:]) == alerts


def test_an_alert_names_its_product_and_leads_to_it(client: FlaskClient):
    text = client.get("/").text
    assert re.search(r'<th scope="row"><a href="/products/p1">Product p1</a></th>', text)


def test_commands_in_a_text_are_code_and_all_else_is_text(client: FlaskClient):
    text = client.get("/recommendations", query_string={"person": "`<b>`"}).text
    assert "For <code>&lt;b&gt;</code>." in text
    assert "<b>" not in text


def test_funnel_has_its_steps_and_groups(client: FlaskClient):
    tables = shown(client, f"/funnel?date={DAY}&by=category").by_id
    assert tables["steps"][1:] == [["Viewed", "10"], ["Put into a cart", "4"], ["Bought", "3"]]
    assert tables["groups"][1:] == [["books", "5", "2", "0", "0.00%"]]


def test_products_are_listed_with_the_sums_of_the_days(client: FlaskClient):
    rows = shown(client, f"/products?since={DAY - timedelta(days=1)}&until={DAY}").by_id["products"][1:]
    assert [row[:4] for row in rows[:2]] == [["Product p1", "40", "3", "3"], ["Product p2", "40", "3", "3"]]
    assert len(rows) == 2 + len(STRANGE_PRODUCTS)


def test_report_says_what_the_apis_says_and_leads_to_the_days_beside_it(client: FlaskClient):
    report = client.get(f"/api/reports/{REPORT_DAY}").json
    page = shown(client, f"/reports/{REPORT_DAY}")
    assert page.figures["Orders"] == f"{report['orders']:,}"
    assert page.figures["Buyers"] == f"{report['buyers']['count']:,}"
    assert [row[-1] for row in page.by_id["products"][1:]] == [
        f"{product['views']:,}" for product in report["top_5_viewed_products"]
    ]
    assert [row[0] for row in page.by_id["categories"][1:]] == [*report["conversion_rates_by_category"]]
    # Elasticsearch's refusals and fields that were left out are no rejected records.
    assert page.by_id["rejected"][1:] == [["not_json", "(record)", "1"]]
    assert dict(page.by_id["segments"][1:]) == {
        name.replace("_", " "): f"{users:,}" for name, users in report["customer_segments"].items()
    }
    text = client.get(f"/reports/{REPORT_DAY}").text
    for day in (REPORT_DAY - timedelta(days=1), REPORT_DAY + timedelta(days=1)):
        assert f'href="/reports/{day}"' in text
    chosen = client.get(f"/reports?date={REPORT_DAY}")
    assert (chosen.status_code, chosen.headers["Location"]) == (302, f"/reports/{REPORT_DAY}")


@pytest.mark.parametrize("day", ["2001-01-01", "2024-13-01", "yesterday"])
def test_day_without_a_report_says_which_there_are(client: FlaskClient, day: str):
    answer = client.get(f"/reports/{day}")
    if day == "2001-01-01":
        assert "There is no report of 2001-01-01: there are 2, from" in answer.text
    else:
        assert answer.status_code == 404


def test_pictures_are_shown_from_the_servers_that_are_named_and_from_no_other(
    settings: Settings, client: FlaskClient
):
    paths = (f"/products?since={DAY}&until={DAY}", "/products/p1")
    picture = 'src="https://a.example/1.png"'
    assert [client.get(path).text.count(picture) for path in paths] == [0, 0]
    for named in clients_of(with_settings(settings, picture_hosts="https://a.example/")):
        answers = [named.get(path) for path in paths]
        # In the list of products and at two alerts; and on the product's own page.
        assert [answer.text.count(picture) for answer in answers] == [3, 1]
        assert "img-src 'self' data: https://a.example/;" in answers[0].headers["Content-Security-Policy"]
    for other in clients_of(with_settings(settings, picture_hosts="https://a.example.org/")):
        assert picture not in other.get(paths[0]).text


def test_carts_name_their_products_and_those_without_a_name_by_their_ids(client: FlaskClient):
    carts = shown(client, "/customers").by_id["carts"][1:]
    assert [(row[0], row[2]) for row in carts] == [("u2", 'Product p1, p"2,'), ("u1", 'Product p1, p"2,')]


@pytest.mark.parametrize("product", STRANGE_PRODUCTS)
def test_page_of_a_product_is_found_by_the_link_to_it(client: FlaskClient, product: str):
    text = client.get(f"/products?since={DAY}&until={DAY}").text
    links = dict(re.findall(r'<a href="(/products/[^"]+)">([^<]*)</a>', text))
    [link] = [link for link, name in links.items() if unescape(name) == product]
    page = client.get(unescape(link))
    assert page.status_code == 200
    assert unescape(re.search("<h1>(.*?)</h1>", page.text, re.DOTALL)[1]) == product


@pytest.mark.parametrize("person", STRANGE_USERS)
def test_recommendations_of_a_person_are_the_apis(client: FlaskClient, person: str):
    listed = client.get("/recommendations", query_string={"person": person}, headers=ENGLISH)
    assert "product p7" in listed.text.lower() or "p7" in [
        row[0] for row in Tables(listed.text).by_id["list"][1:]
    ]


def test_products_of_a_product_are_the_apis_and_have_names(client: FlaskClient):
    tables = shown(client, "/recommendations?product=p1").by_id
    for id_, route in (("similar", "item-to-item"), ("together", "bought-together")):
        items = client.get(f"/api/{route}/p1?n=10").json["items"]
        assert [row[:2] for row in tables[id_][1:]] == [
            [item["name"] or item["product_id"], item["reason"]] for item in items
        ]
    assert [row[0] for row in tables["together"][1:]][:2] == ["Product p9", "p4"]
    assert "list" not in tables


def test_models_record_is_of_the_algorithm_that_was_chosen(client: FlaskClient):
    heading, *trainings = shown(client, "/recommendations").by_id["record"]
    assert heading == ["Trained", "What is new to known shoppers", "What is bought, again or not"]
    assert trainings == [["31 May 2024, 00:00:00", "0.250", "0.500"]]


def test_what_a_name_holds_is_text(client: FlaskClient):
    answer = client.get("/recommendations", query_string={"person": '"><script>alert(1)</script>'})
    assert "<script>alert" not in answer.text


def test_numbers_are_written_as_the_reader_writes_them(client: FlaskClient):
    german = client.get(f"/?date={REPORT_DAY}", headers={"Accept-Language": "de-DE,de;q=0.9,en;q=0.5"})
    figures = Tables(german.text).figures
    [day] = client.get(f"/api/days?date={REPORT_DAY}").json["days"]
    assert figures["Visits that bought"] == f"{day['conversion_rate']:.2f}%".replace(".", ",").replace(
        "%", "\xa0%"
    )
    unknown = client.get(f"/?date={REPORT_DAY}", headers={"Accept-Language": "xx-YY, *"})
    assert Tables(unknown.text).figures == shown(client, f"/?date={REPORT_DAY}").figures


@pytest.mark.parametrize(
    "query", ["date=yesterday", "date=", "since=2024-06-02&until=2024-06-01", "by=nothing&figure=x"]
)
@pytest.mark.parametrize("path", ["/", "/trends", "/funnel", "/products"])
def test_unusable_parameter_is_as_if_it_were_not_there(client: FlaskClient, path: str, query: str):
    assert client.get(f"{path}?{query}").status_code == 200


def test_live_part_alone_is_a_part_of_the_page(client: FlaskClient):
    part = client.get("/?part=live").text
    assert "<html" not in part
    assert "Live events" in part
    assert part.strip() in client.get("/").text


def test_pages_are_counted_once(client: FlaskClient):
    def counted() -> dict[str, float]:
        text = client.get("/metrics").text
        found = re.findall(r'requests?_seconds_count{method="GET",route="([^"]+)",status="200"} (\S+)', text)
        return {route: float(number) for route, number in found}

    before = counted()
    client.get("/trends")
    after = counted()
    assert {route for route in after if after[route] != before.get(route)} == {"/trends", "/metrics"}
