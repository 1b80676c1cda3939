"""The limits page in a real browser: set by keyboard alone, refused beside the field, seen to move."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from django.conf import settings
from playwright.sync_api import Browser, Locator, Page, expect
from pytest_django.live_server_helper import LiveServer

from controlplane.portal.tests.browsing import Visit
from controlplane.portal.tests.conftest import House, let_in, signed_in
from serving.admission.keys import admission_prefix

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(180),
]


@pytest.fixture
def visit(browser: Browser, house: House, live_server: LiveServer) -> Iterator[Visit]:
    context = browser.new_context(base_url=live_server.url)
    let_in(context, signed_in(house.owner), live_server.url)
    yield Visit(context)
    context.close()


def tab_to(page: Page, field: Locator) -> None:
    for _ in range(60):
        if field.evaluate("element => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{field} is not reached by keyboard")


def test_a_key_is_limited_with_the_keyboard_alone(
    house: House, visit: Visit, redis_client: redis.Redis
) -> None:
    page = visit.page
    page.goto(house.address("limits/"))
    tab_to(page, page.get_by_role("combobox", name="Key"))
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    field = page.get_by_label("Calls at a time")
    tab_to(page, field)
    page.keyboard.type("1000")
    page.keyboard.press("Enter")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_have_accessible_description(
        "The organization allows 100 calls at a time; a limit above that would never be met."
    )
    assert visit.barriers() == []
    tab_to(page, field)
    page.keyboard.press("Control+A")
    page.keyboard.type("4")
    tab_to(page, page.get_by_label("Monthly budget in US dollars"))
    page.keyboard.type("250")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("gateways hold to it within 5 seconds")
    row = page.get_by_role("row", name="key")
    expect(row).to_contain_text("0 of 4")
    expect(row).to_contain_text("$250.00 left")


def test_what_is_used_is_seen_to_move(
    house: House, visit: Visit, redis_client: redis.Redis
) -> None:
    page = visit.page
    page.goto(house.address("limits/"))
    expect(page.locator(".gauges")).to_contain_text("3,000 left")
    seconds, _micros = redis_client.time()
    name = f"{admission_prefix(settings.TESSERA_CELL)}requests:org:{house.organization.id}"
    redis_client.set(name, (seconds + 600) * 1_000_000)
    expect(page.locator(".gauges")).to_contain_text("whole again in 60 s")
    assert visit.complaints == []
