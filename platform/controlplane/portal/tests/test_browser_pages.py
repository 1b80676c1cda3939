"""Every page in a real browser: nothing complains, nothing runs over, nothing shuts anybody out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import redis
from django.conf import settings
from playwright.sync_api import Browser
from pytest_django.live_server_helper import LiveServer

from billing.tests.factories import make_event
from controlplane.portal.tests.browsing import Scheme, Visit
from controlplane.portal.tests.conftest import House, let_in, signed_in
from controlplane.portal.tests.test_cell_pages import enter, fill, speak
from serving.admission.keys import admission_prefix
from serving.models import Artifact, ArtifactStatus, Deployment, DeploymentStatus
from serving.tests import factories as serving
from tenants.scope import organization_scope
from tenants.services import key_limits_set, project_limits_set
from tenants.tests.factories import SYSTEM, make_organization

DOLLAR = 10**9

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

PAGES = [
    "",
    "playground/",
    "models/",
    "models/new/",
    "models/{ready}/",
    "models/{refused}/",
    "models/{uploading}/",
    "deployments/",
    "deployments/new/",
    "deployments/{deployment}/",
    "keys/",
    "usage/",
    "usage/?group=day&days=90",
    "limits/",
    "limits/key/{key}/",
    "members/",
    "audit/",
]
# Those that look another way where there is nothing yet.
EMPTY_PAGES = ["", "playground/", "models/", "deployments/", "deployments/new/", "keys/", "usage/"]
OPERATORS_PAGES = [
    "/admin/",
    "/admin/admission/",
    "/admin/gateways/",
    "/admin/tenants/quota/add/",
    "/admin/tenants/plan/add/",
    "/organizations/new/",
]
WINDOWS: list[tuple[Scheme, int]] = [
    ("light", 1280),
    ("light", 375),
    ("dark", 1280),
    ("dark", 375),
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_pages(
    furnished: dict[str, str],
    house: House,
    live_server: LiveServer,
    browser: Browser,
    window: tuple[Scheme, int],
) -> None:
    scheme, width = window
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": width, "height": 800}, reduced_motion="reduce"
    )
    let_in(context, signed_in(house.owner), live_server.url)
    empty = make_organization("empty", owner=house.owner)
    addresses = [house.address(path.format(**furnished)) for path in PAGES]
    addresses += [f"/o/{empty.slug}/{path}" for path in EMPTY_PAGES]
    addresses += ["/accounts/logout/", "/accounts/password/reset/"]
    found = {address: problems(Visit(context), live_server.url + address) for address in addresses}
    context.close()
    outside = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})
    found["sign in"] = problems(Visit(outside), f"{live_server.url}/accounts/login/")
    outside.close()
    assert {address: what for address, what in found.items() if what} == {}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_the_operators_pages(  # noqa: PLR0917 - fixtures
    furnished: dict[str, str],
    house: House,
    redis_client: redis.Redis,
    live_server: LiveServer,
    browser: Browser,
    window: tuple[Scheme, int],
) -> None:
    house.owner.is_staff = house.owner.is_superuser = True
    house.owner.save()
    scheme, width = window
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})
    let_in(context, signed_in(house.owner), live_server.url)
    busy_cell(redis_client)
    addresses = [*OPERATORS_PAGES, f"/admin/tenants/organization/{house.organization.id}/change/"]
    found = {address: problems(Visit(context), live_server.url + address) for address in addresses}
    context.close()
    assert {address: what for address, what in found.items() if what} == {}


def problems(visit: Visit, address: str) -> list[str]:
    answer = visit.page.goto(address)
    visit.page.evaluate("document.fonts.ready")
    status = answer.status if answer else 0
    found = [] if status == 200 else [f"status {status}"]
    found += ["wider than the window"] if visit.overflows() else []
    found += visit.barriers() + visit.complaints
    visit.page.close()
    return found


@pytest.fixture
def furnished(house: House, redis_client: redis.Redis) -> dict[str, str]:
    """Rows in every state that a page has a face for; the ids that addresses name."""
    made = {}
    for status, rule in (
        (ArtifactStatus.READY, ""),
        (ArtifactStatus.REFUSED, "rank"),
        (ArtifactStatus.UPLOADING, ""),
        (ArtifactStatus.VALIDATING, ""),
    ):
        artifact = serving.artifact(house.organization, house.base)
        made[status.value] = str(artifact.id)
        with organization_scope(house.organization.id):
            Artifact.objects.filter(id=artifact.id).update(
                status=status, rule=rule, reason=rule and "r is 512; at most 64 is served."
            )
    for number, state in enumerate(DeploymentStatus):
        version = serving.version(house.artifact, name="desk", number=number)
        deployment = serving.deployment(version, slug=f"desk-{state}")
        with organization_scope(house.organization.id):
            Deployment.objects.filter(id=deployment.id).update(
                status=state, reason="One of two engines holds it; the other is starting."
            )
    for number in range(40):
        make_event(
            occurred_at=datetime.now(UTC) - timedelta(days=number % 13),
            organization_id=house.organization.id,
            project_id=house.deployment.project_id,
            key_id=house.key.id,
            model=f"desk-{number % 9}",
            input_tokens=1000 + number,
        )
    limits_furnished(house, redis_client)
    return made | {"deployment": str(house.deployment.id), "key": str(house.key.id)}


def busy_cell(redis_client: redis.Redis) -> None:
    """Something in every table of the operators' pages of a cell."""
    writer = fill(redis_client, organization="x", cell=settings.TESSERA_CELL)
    enter(writer, cell=settings.TESSERA_CELL)
    enter("node-2_boot_9", cell=settings.TESSERA_CELL)
    for name, ago_seconds in (("node-1/0", 0), ("node-1/1", 3_600)):
        speak(redis_client, name, ago_seconds=ago_seconds, cell=settings.TESSERA_CELL)


def limits_furnished(house: House, redis_client: redis.Redis) -> None:
    """A project and a key with limits, with room and without."""
    limits = {"requests_per_minute": 120, "concurrency": 4, "budget_nano": 250 * DOLLAR}
    of_project = {"organization_id": house.organization.id, "project_id": house.key.project_id}
    project_limits_set(**of_project, caller=SYSTEM, limits=limits)
    key_limits_set(house.organization.id, house.key.id, caller=SYSTEM, limits=limits)
    prefix = admission_prefix(settings.TESSERA_CELL)
    seconds, _micros = redis_client.time()
    for subject, filled in ((f"org:{house.organization.id}", 21), (f"key:{house.key.id}", 60)):
        redis_client.set(f"{prefix}requests:{subject}", (seconds + filled) * 1_000_000)
        redis_client.set(f"{prefix}tokens:{subject}", (seconds + filled - 9) * 1_000_000)
