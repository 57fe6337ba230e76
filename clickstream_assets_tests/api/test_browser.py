"""The pages in a real browser: nothing from elsewhere, nothing wrong, by keyboard, and what is live."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from uuid import uuid4

import msgspec
import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Browser, Page, expect

from clickstream_assets.keys import Scope
from clickstream_assets.settings import Settings
from clickstream_assets.stores.elasticsearch import Document, LiveEvents
from clickstream_assets_tests.api.api_keys import entry
from clickstream_assets_tests.api.served import Served, served
from clickstream_assets_tests.api.shop import DAY, REPORT_DAY
from clickstream_assets_tests.api.test_pages import ALL
from clickstream_assets_tests.browsing import FORMS, Viewer, chromium, needs_chromium, viewing
from clickstream_assets_tests.databases import with_settings

pytestmark = [
    needs_chromium,
    # One of them has the browser.
    pytest.mark.xdist_group("browser"),
]
DAYS = f"since={DAY}&until={DAY}"
WIDE = ("/", "/products", "/customers", "/docs")

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def alias() -> str:
    return f"pages_{uuid4().hex}"


@pytest.fixture(scope="module")
def live(settings: Settings, alias: str) -> Iterator[LiveEvents]:
    own = with_settings(settings, elasticsearch_alias=alias)
    events = LiveEvents(own)
    events.prepare()
    yield events
    events.client.indices.delete(index=events.index(datetime.now(UTC).date()), ignore_unavailable=True)
    events.client.indices.delete_index_template(name=alias)
    events.close()


@pytest.fixture(scope="module")
def api(settings: Settings, live: LiveEvents, alias: str) -> Iterator[Served]:
    with served(settings, ELASTICSEARCH_ALIAS=alias) as running:
        yield running


@pytest.fixture
def viewer(browser: Browser, api: Served) -> Iterator[Viewer]:
    with viewing(browser, api.address) as viewer:
        yield viewer


@pytest.fixture
def open_page(viewer: Viewer) -> Open:
    return viewer.open


@pytest.mark.parametrize(
    ("path", "form"), [*((path, "desk") for path in ALL), *((path, "phone") for path in WIDE)]
)
def test_page_has_nothing_that_axe_finds_and_fits(viewer: Viewer, path: str, form: str):
    viewer.require_fit_and_accessible(path, *FORMS[form])


@pytest.mark.long
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("path", ALL)
def test_page_is_so_in_each_form(viewer: Viewer, path: str, form: str):
    viewer.require_fit_and_accessible(path, *FORMS[form])


def test_arrow_keys_read_a_chart_as_its_table_has_it(open_page: Open):
    page = open_page(f"/funnel?date={DAY}")
    chart = page.locator("figure#steps")
    chart.locator("canvas").focus()
    read = chart.locator(".read")
    for key, text in (
        ("ArrowRight", "Viewed: Visitors 10"),
        ("ArrowRight", "Put into a cart: Visitors 4"),
        ("End", "Bought: Visitors 3"),
        ("ArrowRight", "Bought: Visitors 3"),
        ("Home", "Viewed: Visitors 10"),
        ("Escape", ""),
    ):
        page.keyboard.press(key)
        expect(read).to_have_text(text)
    chart.locator("summary").press("Enter")
    expect(chart.locator("tbody tr").first).to_have_text("Viewed10")


def test_everything_is_reached_by_the_tab_key_and_the_first_is_the_way_to_the_content(open_page: Open):
    page = open_page(f"/products?{DAYS}")
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("To the content")
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("document.activeElement.getAttribute('href') || document.activeElement.name || ''")
        )
    assert {"/", "/trends", "/customers", "since", "until", "category", "sort", "/products/p1"} <= reached


def test_a_choice_is_in_the_address(open_page: Open):
    page = open_page(f"/trends?{DAYS}")
    page.locator("select[name=by]").select_option("category")
    page.wait_for_url("**by=category**")
    page.locator("select[name=figure]").select_option("views")
    page.wait_for_url("**figure=views**")
    assert f"since={DAY}" in page.url
    expect(page.locator("figure#groups h2")).to_contain_text("Product views by category")


def test_without_a_script_every_value_is_there(browser: Browser, api: Served):
    context = browser.new_context(java_script_enabled=False, locale="en-GB")
    page = context.new_page()
    page.goto(f"{api.address}/funnel?date={DAY}")
    page.locator("figure#steps summary").click()
    expect(page.locator("figure#steps tbody tr")).to_have_text(["Viewed10", "Put into a cart4", "Bought3"])
    context.close()


def test_an_event_that_comes_is_on_the_page_within_five_seconds(open_page: Open, live: LiveEvents):
    page = open_page("/")
    expect(page.locator("[data-part=live]")).to_contain_text("None has come yet")
    now = datetime.now(UTC)
    event = {
        "event_id": "live-1",
        "event_type": "view",
        "event_time": now.isoformat(),
        "event_date": now.date(),
        "user_id": "somebody",
        "product_id": "p1",
        "is_bot": False,
        "payload_hash": "h",
        **{"topic": "t", "partition": 0, "offset": 1, "item": 1, "items": 1},
        "kafka_time": now.isoformat(),
        "words": "",
    }
    live.write([Document("live-1", now.date(), ("t", 0, 1), msgspec.json.encode(event))])
    expect(page.locator("[data-part=live]")).to_contain_text("Product p1", timeout=5_000)


TRIED = {
    "/api/funnel": ("Conversion", "conversion_from_first"),
    "/api/reports/{date}": ("Reports", "top_5_viewed_products"),
    "/api/products/{product_id}": ("Products", "view_count"),
    "/api/recommend/{user_id}": ("Recommendations", "model_version"),
    "/api/session/recommend": ("Recommendations", "model_version"),
}
"""Operations by their tags, and what their answers have."""


def test_api_is_tried_from_its_page_with_what_there_is(open_page: Open):
    page = open_page("/docs")
    for tag in dict.fromkeys(tag for tag, _ in TRIED.values()):
        page.locator(f"#operations-tag-{tag}").click()
    for path, (_, said) in TRIED.items():
        operation = page.locator(".opblock").filter(has=page.locator(f'[data-path="{path}"]'))
        operation.locator(".opblock-summary-control").click()
        operation.get_by_role("button", name="Execute").click()
        answer = operation.locator(".live-responses-table tbody")
        expect(answer.locator("td.response-col_status")).to_contain_text("200")
        expect(answer).to_contain_text(said)


def test_report_leads_to_the_day_before(open_page: Open):
    page = open_page(f"/reports/{REPORT_DAY}")
    page.get_by_role("link", name="The day before").click()
    expect(page.locator("h1")).to_contain_text("Report of")
    expect(page.locator("main")).to_contain_text("There is no report of")


@pytest.fixture(scope="module")
def guarded(settings: Settings) -> Iterator[Served]:
    with served(settings, API_KEYS=entry("cs_reader", Scope.READ)) as running:
        yield running


def type_key(page: Page, key: str) -> None:
    """Type a key into the form, which waits for it."""
    expect(page.get_by_label("Key")).to_be_focused()
    page.keyboard.type(key)
    page.keyboard.press("Enter")


def test_keys_open_pages_and_a_logout_closes_them_all_by_keyboard(browser: Browser, guarded: Served):
    with viewing(browser, guarded.address) as viewer:
        page = viewer.open(f"/trends?{DAYS}")
        expect(page).to_have_url(re.compile(r"/login\?next=%2Ftrends"))
        type_key(page, "cs_wrong")
        expect(page.get_by_role("alert")).to_have_text("This key is not known.")
        expect(page.get_by_label("Key")).to_have_attribute("aria-invalid", "true")
        # Chromium says of each such answer what its status is.
        [refused] = viewer.wrong
        assert "status of 401" in refused
        viewer.wrong.clear()
        type_key(page, "cs_reader")
        expect(page.locator("h1")).to_have_text("Trends")
        assert page.url.endswith(f"/trends?{DAYS}")
        for _ in range(20):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.textContent").startswith("Log out"):
                break
        expect(page.locator(":focus")).to_have_text("Log out of the key test")
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_have_text("Log in")
        page.goto(f"{guarded.address}/reports")
        expect(page.locator("h1")).to_have_text("Log in")


@pytest.mark.parametrize("form", FORMS)
def test_login_has_nothing_that_axe_finds_and_fits(browser: Browser, guarded: Served, form: str):
    with viewing(browser, guarded.address) as viewer:
        page = viewer.require_fit_and_accessible("/", *FORMS[form])
        expect(page.locator("h1")).to_have_text("Log in")
        page = viewer.open("/", *FORMS[form], with_axe=True)
        type_key(page, "cs_wrong")
        page.get_by_role("alert").wait_for()
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        viewer.wrong.clear()
        type_key(page, "cs_reader")
        expect(page.get_by_role("button", name="Log out")).to_be_visible()
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
