"""The pages of two demos in a real browser: each number is the API's, and that of plain SQL over what was sent."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
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
LOOKS, CLICKS = 3, 5
# A folder for pictures of the pages, for whoever wants to look at them too.
SHOTS = os.environ.get("CLICKSTREAM_TEST_SHOTS")


@dataclass(frozen=True)
class Demo:
    """A running demo, with what it was sent and what of it is looked at."""

    name: str
    address: str
    settings: Settings
    recomputation: Recomputation
    lake: dict[str, Any]
    feed: list[dict[str, Any]]
    last: date
    person: str
    product: str
    category: str

    @property
    def pictures(self) -> str | None:
        """Where the pictures of the feed are."""
        return self.feed[0]["image"].partition("/products/")[0] if self.feed else None

    def pages(self) -> dict[str, Callable[[Source], Contents]]:
        """Return what each page has to show, by its address."""
        last, person, product = self.last, self.person, self.product
        week = (last - timedelta(days=6), last)
        today = datetime.now(UTC).date()
        return {
            "/": expected.today,
            **{f"/?date={day}": partial(expected.today, day=day) for day in week},
            **{
                f"/trends?figure={figure}": partial(expected.trends, figure=figure)
                for figure in expected.OF_THE_SHOP
            },
            "/trends?figure=orders&before=1": partial(expected.trends, figure="orders", before=True),
            **{
                f"/trends?by={by}&figure={figure}": partial(expected.trends_by, by=by, figure=figure)
                for by, figures in expected.BY_GROUP.items()
                for figure in figures
            },
            **{f"/funnel?by={by}": partial(expected.funnel, by=by) for by in ("category", "segment", "rfm")},
            **{
                f"/products?sort={sort}": partial(expected.products, sort=sort)
                for sort in ("view_count", "revenue", "net_revenue", "purchases", "add_to_carts")
            },
            "/products?offset=50": partial(expected.products, offset=50),
            f"/products?category={self.category}": partial(expected.products, category=self.category),
            f"/products/{product}": partial(expected.product, product_id=product),
            "/customers": expected.customers,
            "/recommendations": expected.models,
            f"/recommendations?person={person}": partial(expected.recommendations, person=person),
            f"/reports?since={week[0]}&until={last}": partial(expected.reports, first=week[0], last=last),
            f"/reports/{last}": partial(expected.report, day=last),
            "/data": partial(expected.data, first=today - timedelta(days=13), last=today),
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
    [(category,)] = recomputation.query(
        "SELECT product_category FROM persons WHERE event_type = 'view' AND product_category IS NOT NULL "
        "GROUP BY ALL ORDER BY count(*) DESC, product_category LIMIT 1"
    )
    feed_file = folder / "home" / "products.jsonl"
    lines = feed_file.read_text().splitlines() if feed_file.exists() else []
    feed = [json.loads(line, parse_float=Decimal) for line in lines]
    assert bool(feed) == (name == "simulated")
    return Demo(name, found[1], settings, recomputation, lake, feed, last, person, product, category)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def viewer(browser: Browser, demo: Demo) -> Iterator[Viewer]:
    with viewing(browser, demo.address, demo.pictures) as viewer:
        yield viewer


def differences(
    viewer: Viewer, path: str, contents: Callable[[Source], Contents], independent: Source
) -> dict[str, Any]:
    """Return what a page shows otherwise than the API, or SQL, and the addresses that it names for nothing."""
    seen = read(viewer.open(path))
    viewer.close()
    named = Api(viewer.address, seen.addresses)
    found: dict[str, Any] = {
        what: contents(source).differences(seen) for what, source in (("API", named), ("SQL", independent))
    }
    return {what: wrong for what, wrong in {**found, "named for nothing": named.unread}.items() if wrong}


def test_every_number_is_the_apis_and_that_of_sql_over_what_was_sent(demo: Demo, viewer: Viewer):
    independent = Independent(demo.recomputation, demo.lake, demo.feed, demo.settings, Api(demo.address))
    wrong: dict[str, Any] = {}
    for path, contents in demo.pages().items():
        # Dagster goes on measuring and training: what differs between two looks is looked at again.
        for _ in range(LOOKS):
            found = differences(viewer, path, contents, independent)
            if not found:
                break
        else:
            wrong[path] = found
    assert wrong == {}, json.dumps(wrong, indent=1, default=str)


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
    live = viewer.open("/").locator("[data-part=live]")

    def seconds_until_it_is_shown() -> float:
        product_id = f"product-{uuid4().hex}"
        event = {"event_type": "view", "user_id": demo.person, "product_id": product_id}
        began = time.monotonic()
        send(demo.settings, [json.dumps(event | {"timestamp": datetime.now(UTC).isoformat()}).encode()])
        expect(live).to_contain_text(product_id, timeout=60_000)
        return time.monotonic() - began

    # Dagster ingests the first at once, and takes the processors from the streams meanwhile.
    assert min(seconds_until_it_is_shown() for _ in range(CLICKS)) < 5
