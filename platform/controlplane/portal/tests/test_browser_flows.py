"""What people do, done in a real browser: sign in, make a key, talk to a model, upload one."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from controlplane.portal.tests.browsing import Visit
from controlplane.portal.tests.conftest import House, let_in, signed_in
from controlplane.portal.tests.gateway import REQUEST_ID, Gateway, running_gateway
from serving import services
from serving.artifacts.tests import adapters
from serving.models import Artifact, ArtifactStatus, BaseModel, Deployment, DeploymentStatus
from serving.services.artifacts import PART_BYTES
from serving.tests import uploads
from tenants.scope import organization_scope
from tenants.tests.factories import PASSWORD

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(180),
]


@pytest.fixture
def gateway(settings: Settings) -> Iterator[Gateway]:
    with running_gateway() as gateway:
        settings.TESSERA_GATEWAY_URL = gateway.url
        yield gateway


@pytest.fixture
def context(browser: Browser, house: House, live_server: LiveServer) -> Iterator[BrowserContext]:
    context = browser.new_context(base_url=live_server.url)
    let_in(context, signed_in(house.owner), live_server.url)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page that must not have had anything to complain about when the test is over."""
    visit = Visit(context)
    yield visit.page
    assert visit.complaints == []


def test_from_the_login_to_a_streamed_answer_in_six_clicks(
    house: House, gateway: Gateway, browser: Browser, live_server: LiveServer
) -> None:
    house.owner.set_password(PASSWORD)
    house.owner.save()
    context = browser.new_context(base_url=live_server.url)
    page = context.new_page()
    page.goto("/")
    page.get_by_label("Email").fill(house.owner.email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("link", name="Open the playground").click()
    page.get_by_label("Your message").fill("How long can I return it?")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".turn-text").last).to_have_text("Within 30 days.")
    context.close()


def test_a_key_is_made_copied_and_revoked(
    house: House, context: BrowserContext, page: Page
) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(house.address("keys/"))
    page.get_by_role("button", name="Create key").click()
    secret = page.get_by_test_id("secret").inner_text()
    page.get_by_role("button", name="Copy").first.click()
    assert page.evaluate("navigator.clipboard.readText()") == secret
    page.get_by_role("tab", name="Python").click()
    expect(page.get_by_role("tabpanel")).to_contain_text('model="support"')
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tabpanel")).to_contain_text("OPENAI_API_KEY")
    page.get_by_role("link", name="Done").click()
    page.get_by_role("row", name="My key").get_by_role("button", name="Revoke").click()
    page.get_by_role("button", name="Revoke key").click()
    expect(page.get_by_role("status")).to_contain_text("My key is revoked")
    expect(page.get_by_role("row", name="My key")).to_contain_text("Revoked")


def test_an_answer_streams_and_says_what_it_took(
    house: House, gateway: Gateway, page: Page
) -> None:
    page.goto(house.address("playground/"))
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_label("Your message").fill("How long?")
    gateway.go_on.clear()
    page.keyboard.press("Control+Enter")
    answer = page.locator(".turn").last
    expect(answer.locator(".turn-text")).to_have_text("Within")
    gateway.go_on.set()
    expect(answer.locator(".turn-text")).to_have_text("Within 30 days.")
    expect(answer.locator(".turn-facts")).to_contain_text("TTFT")
    expect(answer.locator(".turn-facts")).to_contain_text("12 in · 3 out")
    (asked,) = gateway.asked
    assert asked["model"] == "support"
    assert [each["role"] for each in asked["messages"]] == ["system", "user"]
    assert gateway.keys[0].startswith("Bearer tsr_live_")


def test_the_conversation_goes_on_with_what_was_said(
    house: House, gateway: Gateway, page: Page
) -> None:
    page.goto(house.address("playground/"))
    for number, text in enumerate(("First", "Second")):
        page.get_by_label("Your message").fill(text)
        page.get_by_role("button", name="Send").click()
        expect(page.locator(".turn-facts").nth(2 * number + 1)).to_contain_text("TTFT")
    roles = [each["role"] for each in gateway.asked[1]["messages"]]
    assert roles == ["user", "assistant", "user"]
    assert gateway.keys[0] == gateway.keys[1]


def test_stop_stops_and_keeps_what_came(house: House, gateway: Gateway, page: Page) -> None:
    page.goto(house.address("playground/"))
    page.get_by_label("Your message").fill("How long?")
    gateway.go_on.clear()
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".turn-text").last).to_have_text("Within")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".turn-facts").last).to_have_text("stopped")
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    assert gateway.left.wait(10)


def test_a_refusal_is_shown_with_its_request_id(
    house: House, gateway: Gateway, context: BrowserContext
) -> None:
    gateway.refusal = (503, {"error": {"message": "No slot is free.", "code": "busy"}})
    page = context.new_page()
    page.goto(house.address("playground/"))
    page.get_by_label("Your message").fill("How long?")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("alert")).to_contain_text("No slot is free.")
    expect(page.get_by_role("alert")).to_contain_text(REQUEST_ID)
    expect(page.get_by_label("Your message")).to_have_value("How long?")


def test_a_key_that_is_no_longer_good_is_replaced_once(
    house: House, gateway: Gateway, context: BrowserContext
) -> None:
    gateway.refusal = (401, {"error": {"message": "Invalid API key.", "code": "invalid_api_key"}})
    page = context.new_page()
    page.goto(house.address("playground/"))
    page.get_by_label("Your message").fill("How long?")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".turn-text").last).to_have_text("Within 30 days.")
    assert gateway.keys[0] != gateway.keys[1]


def test_the_code_shown_asks_the_same(house: House, gateway: Gateway, page: Page) -> None:
    page.goto(house.address("playground/"))
    page.get_by_label("Your message").fill("It's \"mine\", isn't it?")
    page.get_by_role("button", name="View code").click()
    curl = page.locator("#code-curl").inner_text()
    assert f"{gateway.url}/v1/chat/completions" in curl
    body = json.loads(curl.split("-d '")[1][:-1].replace("'\\''", "'"))
    assert body["messages"] == [{"role": "user", "content": "It's \"mine\", isn't it?"}]
    assert "tsr_" not in curl


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"pytorch_model.bin": b"pickle"}, "file_name"),
        ({"adapter_config.json": b"[]"}, "json"),
        ({"adapter_config.json": b'{"peft_type": "IA3"}'}, "peft_type"),
        ({"adapter_model.safetensors": b"\xff" * 64}, "header_length"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_files_are_found_before_anything_is_sent(
    house: House, page: Page, tmp_path: Path, wrong: dict[str, bytes], rule: str
) -> None:
    uploads.base()
    adapters.write_adapter(tmp_path)
    (name,) = wrong
    (tmp_path / name).write_bytes(wrong[name])
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if "/api/" in request.url else None)
    page.goto(house.address("models/new/"))
    page.get_by_label("Base model").select_option(adapters.BASE)
    page.locator("#files").set_input_files(sorted(tmp_path.iterdir()))
    expect(page.locator(f"[data-file='{name}'][data-state=bad] .tag")).to_have_text(rule)
    expect(page.get_by_role("button", name="Upload")).to_be_disabled()
    assert sent == []


def test_an_upload_breaks_off_goes_on_is_checked_and_deployed(
    house: House, context: BrowserContext, tmp_path: Path
) -> None:
    """With a weights file of two parts, of which the second is refused until the page is reloaded."""
    config = dict(adapters.GOOD_CONFIG, r=1)
    weights = _weights_of_two_parts(uploads.base())
    adapters.write_adapter(tmp_path, config=config, weights=weights)
    files = sorted(tmp_path.iterdir())
    page = context.new_page()
    page.goto(house.address("models/new/"))
    page.get_by_label("Name").fill("Returns desk")
    page.get_by_label("Base model").select_option(adapters.BASE)
    page.locator("#files").set_input_files(files)
    page.route("**/parts/1?*", _refuse)
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_role("alert")).to_contain_text("part_broken")
    page.unroute("**/parts/1?*")

    page.reload()
    expect(page.get_by_role("heading", name="Returns desk")).to_be_visible()
    sent: list[str] = []
    page.on(
        "request", lambda request: sent.append(request.url) if "/parts/" in request.url else None
    )
    page.locator("#files").set_input_files(files)
    page.get_by_role("button", name="Resume upload").click()
    expect(page.get_by_text("Being checked")).to_be_visible()
    assert ["/parts/1" in url for url in sent] == [True]

    with organization_scope(house.organization.id):
        made = Artifact.objects.get(name="Returns desk")
        assert made.status == ArtifactStatus.VALIDATING
    services.artifact_validate(made.id)
    expect(page.get_by_text("Every check passed.")).to_be_visible()
    page.get_by_role("link", name="Deploy", exact=True).click()
    expect(page.get_by_label("Name in the API")).to_have_value("returns-desk")
    page.get_by_role("button", name="Deploy").click()
    expect(page.get_by_role("heading", name="returns-desk")).to_be_visible()


def test_other_files_than_it_was_begun_with_are_refused(
    house: House, context: BrowserContext, tmp_path: Path
) -> None:
    uploads.base()
    files = uploads.adapter_bytes(tmp_path)
    client = signed_in(house.owner)
    client.defaults["QUERY_STRING"] = f"organization={house.organization.slug}"
    begun = uploads.begin(client, files)
    adapters.write_adapter(tmp_path, config=dict(adapters.GOOD_CONFIG, lora_alpha=8))
    page = context.new_page()
    page.goto(house.address(f"models/{begun['id']}/"))
    page.locator("#files").set_input_files(sorted(tmp_path.iterdir()))
    page.get_by_role("button", name="Resume upload").click()
    expect(page.get_by_role("alert")).to_contain_text("adapter_config.json: not the file")


def test_a_state_that_changes_shows_by_itself(house: House, page: Page) -> None:
    page.goto(house.address(f"deployments/{house.deployment.id}/"))
    status = page.locator("#deployment-status")
    expect(status).to_contain_text("Proven on 1 of 1 engines.")
    with organization_scope(house.organization.id):
        Deployment.objects.update(status=DeploymentStatus.FAILED, reason="The engine is gone.")
    expect(status).to_contain_text("The engine is gone.")
    expect(status).to_contain_text("Failed")
    with organization_scope(house.organization.id):
        Deployment.objects.filter(id=house.deployment.id).delete()
    page.wait_for_url("**/deployments/")


def test_a_colour_scheme_is_kept(house: House, page: Page) -> None:
    page.goto(house.address(""))
    page.get_by_role("button", name="Dark").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.goto(house.address("keys/"))
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(14, 15, 18)"


def _refuse(route: Route) -> None:
    body = {"error": {"code": "invalid", "message": "Refused.", "rule": "part_broken"}}
    route.fulfill(status=422, json=body)


def _weights_of_two_parts(base: BaseModel) -> bytes:
    """A right adapter of a module so wide that its file is longer than one part."""
    width = PART_BYTES // 4
    base.modules = {"model.q_proj": [8, width]}
    base.save()
    half = struct.pack("<f", 0.5)
    return adapters.safetensors(
        {
            "base_model.model.model.q_proj.lora_A.weight": ("F32", [1, width], half * width),
            "base_model.model.model.q_proj.lora_B.weight": ("F32", [8, 1], half * 8),
        }
    )
