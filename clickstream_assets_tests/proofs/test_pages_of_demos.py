"""The pages of two demos in a real browser: each number is the API's, and that of plain SQL over what was sent."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, expect

from clickstream_assets.settings import Settings
from clickstream_assets_tests.browsing import FORMS, Viewer, chromium, needs_chromium, viewing
from clickstream_assets_tests.defs.pipeline import send
from clickstream_assets_tests.demos import demo_that_stays_up
from clickstream_assets_tests.proofs.pages import expected
from clickstream_assets_tests.proofs.pages.seen import read
from clickstream_assets_tests.proofs.pages.shown import Contents
from clickstream_assets_tests.proofs.pages.sources import Api, Independent, Source, lake_tables
from clickstream_assets_tests.proofs.recomputation import Recomputation
from clickstream_assets_tests.proofs.simulated import raw, valid
from clickstream_assets_tests.proofs.test_rees46 import DAY as REES46_DAY
from clickstream_assets_tests.proofs.test_rees46 import FILE as REES46
from clickstream_assets_tests.proofs.test_rees46 import RAW as REES46_RAW

pytestmark = [
    pytest.mark.long,
    pytest.mark.server,
    needs_chromium,
    # One of them has the browser, and the demos.
    pytest.mark.xdist_group("browser"),
]

DEMOS = [
    "simulated",
    pytest.param(
        "REES46", marks=pytest.mark.skipif(not REES46.exists(), reason=f"{REES46} is not on this machine")
    ),
]
# Worth in EUR, as the demo's exchange rates have it.
RATES = {"USD": Decimal("0.92"), "GBP": Decimal("1.17"), "PLN": Decimal("0.23")}
LAKE = ("events", "raw_events", "duplicate_events", "conflicting_events", "rejected_events")
SHOTS = os.environ.get("CLICKSTREAM_TEST_SHOTS")


@dataclass(frozen=True)
class Demo:
    """A running demo, with what it was sent and what of it is looked at."""

    name: str
    address: str
    settings: Settings
    recomputation: Recomputation
    lake: dict[str, Any]
    last: date
    person: str
    product: str

    def pages(self) -> dict[str, Callable[[Source], Contents]]:
        """Return what each page has to show, by its address."""
        last, person, product = self.last, self.person, self.product
        week = (last - timedelta(days=6), last)
        today = datetime.now(UTC).date()
        figures: dict[str, Callable[[Source], Contents]] = {}
        for figure in expected.OF_THE_SHOP:
            figures[f"/trends?figure={figure}"] = lambda source, figure=figure: expected.trends(
                source, figure
            )
        for by, its in expected.BY_GROUP.items():
            for figure in its:
                figures[f"/trends?by={by}&figure={figure}"] = lambda source, by=by, figure=figure: (
                    expected.trends_by(source, by, figure)
                )
        return {
            "/": expected.today,
            f"/?date={week[1]}": lambda source: expected.today(source, week[1]),
            f"/?date={week[0]}": lambda source: expected.today(source, week[0]),
            **figures,
            "/trends?figure=orders&before=1": lambda source: expected.trends(source, "orders", before=True),
            **{
                f"/funnel?by={by}": lambda source, by=by: expected.funnel(source, by)
                for by in ("category", "segment", "rfm")
            },
            **{
                f"/products?sort={sort}": lambda source, sort=sort: expected.products(source, sort)
                for sort in ("view_count", "revenue", "net_revenue", "purchases", "add_to_carts")
            },
            "/products?offset=50": lambda source: expected.products(source, offset=50),
            f"/products/{product}": lambda source: expected.product(source, product),
            "/customers": expected.customers,
            f"/recommendations?person={person}": lambda source: expected.recommendations(source, person),
            f"/reports?since={week[0]}&until={week[1]}": lambda source: expected.reports(source, *week),
            f"/reports/{last}": lambda source: expected.report(source, last),
            "/data": lambda source: expected.data(source, today - timedelta(days=13), today),
        }

    def looked_at(self) -> list[str]:
        """Return an address of each page, to be looked at in all forms."""
        week = f"since={self.last - timedelta(days=6)}&until={self.last}"
        return [
            *("/", "/trends", "/trends?by=category", "/trends?by=campaign", "/trends?by=segment"),
            *("/funnel", "/funnel?by=segment", "/funnel?by=rfm", "/products", f"/products/{self.product}"),
            *(
                "/customers",
                f"/recommendations?person={self.person}",
                f"/reports?{week}",
                f"/reports/{self.last}",
            ),
            *("/data", "/docs"),
        ]


@pytest.fixture(scope="module", params=DEMOS)
def demo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    folder = tmp_path_factory.mktemp(request.param)
    arguments = (
        ["--count", "6000", "--seed", "7"] if request.param == "simulated" else ["--events", str(REES46)]
    )
    with demo_that_stays_up(folder, *arguments) as (_, result, said):
        yield of_demo(request.param, folder, result, said)


def of_demo(name: str, folder: Path, result: dict[str, Any], said: str) -> Demo:
    """Return a demo that is up."""
    found = re.search(r"curl '?(http://127\.0\.0\.1:\d+)/api/recommend", said)
    assert found
    settings = Settings(_env_file=folder / ".env", clickstream_home=folder / "home")
    lake = lake_tables(settings.lake, *LAKE)
    if name == "simulated":
        sent = folder / "sent.jsonl"
        arrived = lake["raw_events"].sort_by(
            [("batch", "ascending"), ("partition", "ascending"), ("offset", "ascending")]
        )
        first = min(lake["events"]["event_date"].to_pylist())
        records = arrived["value"].to_pylist()
        since = datetime.now(UTC) - timedelta(days=400)
        sent.write_bytes(b"".join(line + b"\n" for line in valid(records, since)))
        last = max(lake["events"]["event_date"].to_pylist())
        recomputation = Recomputation(raw(sent), first, last, rates=RATES, currency="EUR")
    else:
        last = REES46_DAY
        recomputation = Recomputation(REES46_RAW, last, last)
    [(person,)] = recomputation.query(
        "SELECT user_id FROM persons WHERE event_type = 'purchase' AND user_id NOT LIKE 'anonymous:%' "
        "GROUP BY user_id ORDER BY count(*) DESC, user_id LIMIT 1"
    )
    [(product,)] = recomputation.query(
        "SELECT product_id FROM persons WHERE event_type = 'purchase' GROUP BY product_id "
        "ORDER BY count(DISTINCT order_key) DESC, product_id LIMIT 1"
    )
    return Demo(name, found[1], settings, recomputation, lake, last, person, product)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def viewer(browser: Browser, demo: Demo) -> Iterator[Viewer]:
    with viewing(browser, demo.address) as viewer:
        yield viewer


def test_every_number_is_the_apis_and_that_of_sql_over_what_was_sent(demo: Demo, viewer: Viewer):
    independent = Independent(demo.recomputation, demo.lake, demo.settings, Api(demo.address))
    wrong: dict[str, Any] = {}
    for path, contents in demo.pages().items():
        seen = read(viewer.open(path))
        named = Api(demo.address, seen.addresses)
        for what, source in (("the API", named), ("SQL", independent)):
            if differences := contents(source).differences(seen):
                wrong[f"{path}, by {what}"] = differences
        if named.unread:
            wrong[f"{path} names addresses that it shows nothing of"] = named.unread
        viewer.close()
    assert wrong == {}


@pytest.mark.parametrize("form", FORMS)
def test_each_page_fits_and_is_for_everybody(demo: Demo, viewer: Viewer, form: str):
    wrong = {}
    for path in demo.looked_at():
        try:
            page = viewer.require_fit_and_accessible(path, *FORMS[form])
        except AssertionError as error:
            wrong[path] = str(error)
            continue
        if SHOTS:
            name = re.sub(r"\W+", "_", f"{demo.name} {path} {form}").strip("_")
            page.screenshot(path=f"{SHOTS}/{name}.png", full_page=True)
        viewer.close()
    assert wrong == {}


def test_a_click_that_is_sent_is_on_the_page_within_five_seconds(demo: Demo, viewer: Viewer):
    page = viewer.open("/")
    product_id = f"product-{uuid4().hex}"
    expect(page.locator("[data-part=live]")).not_to_contain_text(product_id)
    event = {"event_type": "view", "user_id": demo.person, "product_id": product_id}
    send(demo.settings, [json.dumps(event | {"timestamp": datetime.now(UTC).isoformat()}).encode()])
    expect(page.locator("[data-part=live]")).to_contain_text(product_id, timeout=5_000)
