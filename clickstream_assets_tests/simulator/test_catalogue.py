"""What the simulated shop sells: names beside what was there before, its feed, and its pictures and pages."""

from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from clickstream_assets.errors import InputError
from clickstream_assets.ingest.fields import ValidationRules
from clickstream_assets.ingest.product_feed import FeedFile
from clickstream_assets.settings import Settings
from clickstream_assets.simulator.catalogue import BRANDS, CATEGORIES, Catalogue, product
from clickstream_assets.simulator.feed import write_feed
from clickstream_assets.simulator.pages import page, picture

SVG = "{http://www.w3.org/2000/svg}"


def read(path: Path) -> list[dict[str, Any]]:
    feed = FeedFile(path, ValidationRules.of(Settings(_env_file=None)))
    rows = list(feed)
    assert (feed.rejected, feed.others) == ([], [])
    return rows


def test_a_product_is_the_same_in_every_run_and_what_it_was_before_it_had_a_name():
    found = {
        number: (its.category, its.brand, its.cents, its.name, its.available)
        for number, its in ((number, product(number)) for number in (1, 7, 21, 52))
    }
    assert found == {
        1: ("laptops", "Altura", 193899, "Altura Meridian 13 laptop", True),
        7: ("accessories", "Lumio", 800, "Lumio Flex 10 cable", True),
        21: ("cameras", "Fieldsen", 128149, "Fieldsen Silver Z500 camera", False),
        52: ("smartwatches", "Norvo", 21700, "Norvo Zenith 8 smartwatch", True),
    }
    assert Catalogue(60).products[51] == product(52)


def test_five_thousand_products_have_as_many_names():
    assert len({product(number).name for number in range(1, 5_001)}) == 5_000


def test_a_kind_of_product_goes_by_its_price():
    prices = {"gaming mouse": (0, 80), "controller": (80, 160), "gaming keyboard": (160, 350)}
    prices["console"] = (350, 1_000)
    found = set()
    for its in map(product, range(6, 801, 8)):
        kind = next(kind for kind in prices if its.name.endswith(f" {kind}"))
        low, high = prices[kind]
        assert low <= its.cents / 100 < high
        found.add(kind)
    assert found == set(prices)


def test_the_feed_says_of_each_product_what_it_is(tmp_path: Path):
    path = tmp_path / "products.jsonl"
    write_feed(path, 21, "https://shop.example/")
    rows = read(path)
    assert [row["product_id"] for row in rows] == [f"product_{number}" for number in range(1, 22)]
    assert rows[6] == {
        "product_id": "product_7",
        "name": "Lumio Flex 10 cable",
        "category": "accessories",
        "brand": "Lumio",
        "price": Decimal("8.00"),
        "currency": "EUR",
        "image": "https://shop.example/products/product_7.svg",
        "link": "https://shop.example/products/product_7",
        "available": True,
        "withdrawn": False,
    }
    assert [row["product_id"] for row in rows if not row["available"]] == ["product_21"]


def test_without_a_site_the_feed_has_no_pictures_and_no_links(tmp_path: Path):
    path = tmp_path / "products.jsonl"
    write_feed(path, 1)
    assert [(row["name"], row["image"], row["link"]) for row in read(path)] == [
        ("Altura Meridian 13 laptop", None, None)
    ]


def test_a_file_and_a_site_that_cannot_be_used_are_named(tmp_path: Path):
    with pytest.raises(InputError, match=r"none/products.jsonl cannot be written: No such file"):
        write_feed(tmp_path / "none" / "products.jsonl", 1)
    with pytest.raises(InputError, match=r"site=shop\.example: is no address of http or https"):
        write_feed(tmp_path / "products.jsonl", 1, "shop.example")


@pytest.mark.parametrize("number", range(1, 9), ids=lambda number: CATEGORIES[number % 8])
def test_each_category_has_a_picture_with_name_and_brand(number: int):
    its = product(number)
    drawn = ElementTree.fromstring(picture(its))
    assert drawn.tag == f"{SVG}svg"
    assert drawn.findtext(f"{SVG}title") == its.name
    assert drawn.findtext(f"{SVG}text") == its.brand
    assert "$" not in picture(its)


def test_a_brand_has_a_colour_of_its_own_whatever_it_is_on():
    grounds: dict[str, set[str]] = {}
    for its in map(product, range(1, 201)):
        ground = next(ElementTree.fromstring(picture(its)).iter(f"{SVG}stop")).attrib["stop-color"]
        grounds.setdefault(its.brand, set()).add(ground)
    assert tuple(sorted(grounds)) == BRANDS
    assert {len(its) for its in grounds.values()} == {1}
    assert len(set().union(*grounds.values())) == len(BRANDS)


def test_a_page_says_what_the_product_is_and_whether_it_can_be_bought():
    text = page(product(39))
    assert "<h1>Kabel&amp;Co Carry 120 Plus docking station</h1>" in text
    assert "Kabel&amp;Co, accessories" in text
    assert '<img src="/products/product_39.svg"' in text
    assert "In stock" in text
    assert "<strong>1281.49 EUR</strong>" in page(product(21))
    assert "Sold out" in page(product(21))
