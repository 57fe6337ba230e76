"""Posts JSON to webhooks, by Standard Webhooks (https://www.standardwebhooks.com).

`webhook-id` names a message and stays the same however often it is sent, `webhook-timestamp` is the second at which it
was sent, and with a secret `webhook-signature` lets a receiver verify both and the body.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
import urllib3
from pydantic import SecretStr
from standardwebhooks import Webhook

from clickstream_assets.errors import ClickstreamError


class DeliveryError(ClickstreamError):
    """A message was not taken; retryable unless the answer is final. Its text does not have the address."""


class Poster:
    """Posts to webhooks; made by `poster`."""

    def __init__(self, http: urllib3.PoolManager) -> None:
        self._http = http

    def post(self, url: str, name: str, content: Any, secret: SecretStr | None, setting: str) -> None:
        """Post a message.

        Args:
            url: the receiver's address.
            name: the message's `webhook-id`.
            content: is sent as JSON.
            secret: signs it.
            setting: has the address, for the error's text.

        Raises:
            DeliveryError: it was not taken: retryable for 408, 429, 5xx and no answer in time, final for all others
                but 2xx.
        """
        body = msgspec.json.encode(content)
        now = datetime.now(UTC)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "clickstream-assets",
            "webhook-id": name,
            "webhook-timestamp": str(int(now.timestamp())),
        }
        if secret:
            headers["webhook-signature"] = Webhook(secret.get_secret_value()).sign(name, now, body.decode())
        try:
            # The body of the answer is nobody's business, and could be endless.
            answer = self._http.request(
                "POST", url, body=body, headers=headers, redirect=False, preload_content=False
            )
        except urllib3.exceptions.LocationValueError as error:
            # Here and below not its text: that has the address, and with it what the operator keeps secret in there.
            raise DeliveryError(
                f"{setting} cannot be used ({type(error).__name__}); write it as https://host/path"
            ) from None
        except urllib3.exceptions.HTTPError as error:
            raise DeliveryError(f"no answer ({type(error).__name__})", retryable=True) from None
        # Closed rather than given back, as its body was not read.
        answer.close()
        if not 200 <= answer.status < 300:
            may_be_taken = answer.status >= 500 or answer.status in (408, 429)
            raise DeliveryError(f"HTTP {answer.status}", retryable=may_be_taken)


@contextmanager
def poster(timeout: float) -> Iterator[Poster]:
    """Yield what posts to webhooks, each of which may take so many seconds to answer."""
    with urllib3.PoolManager(timeout=timeout, retries=False) as http:
        yield Poster(http)
