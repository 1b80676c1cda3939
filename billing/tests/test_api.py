from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta

import pytest
from rest_framework.test import APIClient

from billing.tests.factories import NOON, make_event
from tenants.models import Organization, Role, Scope
from tenants.tests.factories import (
    PASSWORD,
    make_key,
    make_member,
    make_organization,
    make_user,
)

pytestmark = pytest.mark.django_db(transaction=True)

URL = "/api/v1/usage?from=2026-03-01&to=2026-03-31"
COUNTS = ("requests", "input_tokens", "cached_input_tokens", "output_tokens", "cost_nano")


@pytest.fixture
def acme() -> Organization:
    return make_organization("acme")


@pytest.fixture
def client(acme: Organization) -> APIClient:
    return _with_key(make_key(acme, Scope.USAGE_READ).secret)


def _with_key(secret: str) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
    return client


@pytest.mark.parametrize("group_by", ["day", "project", "key", "model", "day,model,key,project"])
def test_rows_api_and_csv_are_equal_to_the_token(
    acme: Organization, client: APIClient, group_by: str
) -> None:
    keys = [make_key(acme, Scope.INFERENCE).key for _ in range(3)]
    events = [
        make_event(
            organization_id=acme.id,
            project_id=keys[0].project_id,
            key_id=keys[number % 3].id,
            occurred_at=NOON + timedelta(hours=7 * number),
            model=f"model-{number % 4}",
            input_tokens=1000 + number,
            cached_input_tokens=16 * number,
            output_tokens=7 * number,
            cost_nano=2**53 + number,
            completeness=["final", "aborted", "estimated", "unknown"][number % 4],
        )
        for number in range(25)
    ]
    make_event(organization_id=make_organization("globex").id)
    expected = {
        "requests": len(events),
        **{name: sum(event[name] for event in events) for name in COUNTS[1:]},
    }

    answer = client.get(f"{URL}&group_by={group_by}").json()
    assert {name: answer["total"][name] for name in COUNTS} == expected
    assert {name: sum(line[name] for line in answer["lines"]) for name in COUNTS} == expected
    assert answer["total"]["final"] == 7

    text = client.get(f"{URL}&group_by={group_by}&format=csv").content.decode()
    cells = list(csv.DictReader(io.StringIO(text)))
    assert {name: sum(int(line[name]) for line in cells) for name in COUNTS} == expected
    shown = [{name: str(value) for name, value in line.items()} for line in answer["lines"]]
    assert cells == shown


def test_csv_arrives_as_a_file(client: APIClient) -> None:
    for answer in (
        client.get(f"{URL}&format=csv"),
        client.get(URL, headers={"Accept": "text/csv"}),
    ):
        assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
        name = 'attachment; filename="usage-2026-03-01-2026-03-31.csv"'
        assert answer.headers["Content-Disposition"] == name


def test_thirty_days_until_today_are_meant_when_nothing_is_said(
    acme: Organization, client: APIClient
) -> None:
    now = datetime.now(UTC)
    for days in (0, 29, 30):
        make_event(organization_id=acme.id, occurred_at=now - timedelta(days=days))
    answer = client.get("/api/v1/usage").json()
    assert answer["total"]["requests"] == 2
    assert answer["group_by"] == ["day"]
    assert answer["last_day"] == now.date().isoformat()


@pytest.mark.parametrize(
    ("query", "param", "rule"),
    [
        ("group_by=colour", "group_by", "group_known"),
        ("from=yesterday", "from", "date_format"),
        ("to=2026-02-30", "to", "date_format"),
        ("from=2026-03-02&to=2026-03-01", "to", "period_order"),
        ("from=2020-01-01&to=2026-03-01", "from", "period_length"),
        ("form=2026-03-01", "form", "unknown_field"),
        ("from=2026-03-02&to=2026-03-01&format=csv", "to", "period_order"),
    ],
)
def test_bad_questions_name_the_rule(client: APIClient, query: str, param: str, rule: str) -> None:
    answer = client.get(f"/api/v1/usage?{query}")
    assert answer.status_code == 422
    assert answer.headers["Content-Type"] == "application/json"
    error = answer.json()["error"]
    assert (error["param"], error["rule"]) == (param, rule)


def test_a_foreign_project_is_not_found(client: APIClient) -> None:
    foreign = make_key(make_organization("globex"), Scope.INFERENCE).key.project_id
    assert client.get(f"{URL}&project={foreign}").status_code == 404
    assert client.get(f"{URL}&project=nothing").status_code == 404


def test_who_may_read_usage(acme: Organization) -> None:
    assert APIClient().get(URL).status_code == 401
    assert _with_key(make_key(acme, Scope.INFERENCE).secret).get(URL).status_code == 403
    assert _with_key(make_key(acme, Scope.MANAGE).secret).get(URL).status_code == 200
    for role in Role:
        user = make_user(f"{role}@example.com", password=PASSWORD)
        make_member(acme, role, user)
        client = APIClient()
        client.force_login(user)
        assert client.get(f"{URL}&organization=acme").status_code == 200
    stranger = APIClient()
    stranger.force_login(make_user("eve@example.com"))
    assert stranger.get(f"{URL}&organization=acme").status_code == 404


def test_the_openapi_document_describes_it() -> None:
    answer = APIClient().get("/api/v1/schema", headers={"Accept": "application/json"})
    operation = answer.json()["paths"]["/api/v1/usage"]["get"]
    assert {each["name"] for each in operation["parameters"]} >= {"from", "to", "group_by"}
    assert set(operation["responses"]["200"]["content"]) == {"application/json", "text/csv"}
