"""The simulated shop's feed of products, as `clickstream catalogue` reads it."""

import re
from pathlib import Path
from typing import Any

import msgspec

from clickstream_assets.analytics.product_details import ADDRESS
from clickstream_assets.errors import InputError
from clickstream_assets.simulator.catalogue import CURRENCY, Product, product


def page_path(product_id: str) -> str:
    """Return where the shop's own page of a product is, below its address."""
    return f"/products/{product_id}"


def picture_path(product_id: str) -> str:
    """Return where the shop's picture of a product is, below its address."""
    return f"{page_path(product_id)}.svg"


def write_feed(path: Path, products: int, site: str | None = None) -> None:
    """Write what the shop says of its products: JSON lines, one a product, by their numbers.

    Args:
        path: The file; one that is there is replaced.
        products: How many there are.
        site: Address of the shop's own pages, for pictures and links; None writes none.

    Raises:
        InputError: the file cannot be written, or the site is no address.
    """
    if site is not None and not re.match(ADDRESS, site):
        raise InputError(f"site={site}: is no address of http or https; write it as https://shop.example")
    encode = msgspec.json.encode
    try:
        with path.open("wb") as file:
            file.writelines(encode(_line(product(number), site)) + b"\n" for number in range(1, products + 1))
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}; name another file") from error


def _line(product: Product, site: str | None) -> dict[str, Any]:
    said = {
        "product_id": product.product_id,
        "name": product.name,
        "category": product.category,
        "brand": product.brand,
        "price": product.price,
        "currency": CURRENCY,
        "available": product.available,
    }
    if site is None:
        return said
    address = site.rstrip("/")
    return said | {
        "image": address + picture_path(product.product_id),
        "link": address + page_path(product.product_id),
    }
