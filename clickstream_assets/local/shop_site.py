"""The simulated shop's web server: the pictures and pages that its feed names, on loopback, in a thread."""

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from clickstream_assets.local.ports import LOOPBACK, free_port
from clickstream_assets.simulator.catalogue import product
from clickstream_assets.simulator.pages import page, picture

_PRODUCT = re.compile(r"/products/product_([1-9]\d{0,8})(\.svg)?")
# A browser may keep a connection open and say nothing.
_IDLE_SECONDS = 30
_END_SECONDS = 0.1


class _Shop(BaseHTTPRequestHandler):
    """Answers for any product by its number: one follows from it."""

    timeout = _IDLE_SECONDS

    def do_GET(self) -> None:
        """Answer with a product's picture or page, or with 404."""
        found = _PRODUCT.fullmatch(self.path)
        if not found:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        number, is_picture = int(found[1]), found[2] is not None
        content = (picture if is_picture else page)(product(number)).encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "image/svg+xml" if is_picture else "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "max-age=3600")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: stderr is for what the demo is at."""


@contextmanager
def shop_site(besides: Collection[int] = ()) -> Iterator[str]:
    """Serve the shop's pictures and pages until the end of the block; yield their address, without a slash at the end.

    Args:
        besides: Ports to leave to others.
    """
    with ThreadingHTTPServer((LOOPBACK, free_port(besides)), _Shop) as server:
        thread = Thread(target=server.serve_forever, args=(_END_SECONDS,), name="shop site", daemon=True)
        thread.start()
        try:
            yield f"http://{LOOPBACK}:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
