"""The simulated shop's own server."""

from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest

from clickstream_assets.local.ports import is_free
from clickstream_assets.local.shop_site import shop_site
from clickstream_assets.simulator.catalogue import product
from clickstream_assets.simulator.pages import page, picture


def get(site: str, path: str) -> tuple[int, str | None, str]:
    connection = HTTPConnection(urlsplit(site).netloc, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type"), answer.read().decode()
    finally:
        connection.close()


def test_pictures_and_pages_of_products_are_served_until_the_shop_closes(capfd: pytest.CaptureFixture[str]):
    with shop_site() as site:
        assert site.startswith("http://127.0.0.1:")
        assert get(site, "/products/product_7.svg") == (200, "image/svg+xml", picture(product(7)))
        # Any product, as one follows from its number.
        assert get(site, "/products/product_5000") == (
            *(200, "text/html; charset=utf-8"),
            page(product(5000)),
        )
        port = urlsplit(site).port
        assert port
        assert not is_free(port)
    assert is_free(port)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "path",
    ["/", "/products/", "/products/product_0", "/products/product_7.png", "/products/p7", "/../etc/passwd"],
)
def test_what_is_no_product_is_not_found(path: str):
    with shop_site() as site:
        assert get(site, path)[0] == 404
