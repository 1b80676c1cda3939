from __future__ import annotations

import pytest
from django.test import RequestFactory
from django.views.debug import ExceptionReporter
from pytest_django import Settings

from kernel.keys import key_new
from tenants import selectors


def test_an_error_page_shows_no_secret(settings: Settings) -> None:
    settings.DEBUG = True
    settings.REDIS_URL = "redis://:redis-password@example.com"
    settings.TESSERA_KEY_PEPPER = "no hexadecimal"
    secret = key_new("live")
    request = RequestFactory().get("/", headers={"Authorization": f"Bearer {secret}"})
    with pytest.raises(ValueError) as caught:
        selectors.principal_by_key(secret)
    below = caught.tb.tb_next  # this test's own frame holds the key in the open
    page = ExceptionReporter(request, caught.type, caught.value, below).get_traceback_html()
    assert "principal_by_key" in page
    for hidden in (secret, "redis-password", settings.SECRET_KEY, settings.TESSERA_DOCUMENT_KEY):
        assert hidden not in page
