"""Posting to webhooks; what is posted, and what becomes of each answer, is in streaming/test_outbox.py."""

import pytest

from clickstream_assets.stores.webhook import DeliveryError, poster


@pytest.mark.parametrize("url", ["http://[::1/t0ken", "http://host:99999/t0ken", "http:///t0ken"])
def test_an_address_that_is_none_is_not_shown(url: str):
    with (
        poster(1) as webhook,
        pytest.raises(DeliveryError, match=r"ALERT_WEBHOOK_URL cannot be used \(") as caught,
    ):
        webhook.post(url, "1", {}, None, "ALERT_WEBHOOK_URL")
    assert not caught.value.retryable
    assert "t0ken" not in str(caught.value)
    assert caught.value.__cause__ is None
