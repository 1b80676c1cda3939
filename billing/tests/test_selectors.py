from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest
from pytest_django import DjangoAssertNumQueries

from billing.models import UsageEvent
from billing.selectors import Group, Period, Totals, Usage, usage_by, usage_event_list
from billing.tests.factories import NOON, ORGANIZATION, make_event
from kernel.errors import Invalid
from tenants.models import Scope
from tenants.scope import organization_scope, platform_scope
from tenants.tests.factories import make_key, make_organization

pytestmark = pytest.mark.django_db(transaction=True)

MARCH = Period(date(2026, 3, 1), date(2026, 3, 31))


@pytest.fixture
def scope() -> Iterator[None]:
    with organization_scope(ORGANIZATION):
        yield


def usage(*groups: Group, period: Period = MARCH, project_id: UUID | None = None) -> Usage:
    return usage_by(ORGANIZATION, groups=groups, period=period, project_id=project_id)


def test_no_usage_is_no_line_and_zero(scope: None) -> None:
    assert usage(Group.DAY).lines == ()
    assert usage(Group.DAY).total == Totals()


def test_days_are_utc_to_the_microsecond(scope: None) -> None:
    instants = [
        datetime(2026, 2, 28, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2026, 3, 1, tzinfo=UTC),
        datetime(2026, 3, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2026, 4, 1, tzinfo=UTC),
    ]
    for instant in instants:
        make_event(occurred_at=instant)
    assert [line.values for line in usage(Group.DAY).lines] == [("2026-03-01",), ("2026-03-31",)]


def test_every_token_is_in_one_line_of_every_grouping(scope: None) -> None:
    for number in range(12):
        make_event(
            occurred_at=NOON + timedelta(days=number % 3),
            project_id=UUID(int=10 + number % 2),
            key_id=UUID(int=20 + number % 4),
            model=f"model-{number % 5}",
            input_tokens=10**number,
            cached_input_tokens=number,
            output_tokens=2**number,
        )
    for groups, lines in [
        ((Group.DAY,), 3),
        ((Group.PROJECT,), 2),
        ((Group.KEY,), 4),
        ((Group.MODEL,), 5),
        ((Group.DAY, Group.PROJECT), 6),
        (tuple(Group), 12),
    ]:
        found = usage(*groups)
        assert len(found.lines) == lines
        assert found.total.requests == 12
        assert found.total.input_tokens == 111_111_111_111
        assert found.total.cached_input_tokens == 66
        assert found.total.output_tokens == 4095
        assert [line.values for line in found.lines] == sorted(line.values for line in found.lines)


def test_sums_past_what_a_bigint_holds_stay_exact(scope: None) -> None:
    for _ in range(3):
        make_event(input_tokens=2**63 - 1)
    assert usage(Group.DAY).total.input_tokens == 3 * (2**63 - 1)


def test_completeness_is_counted(scope: None) -> None:
    for completeness in ["final", "final", "aborted", "estimated", "unknown"]:
        make_event(completeness=completeness)
    total = usage(Group.MODEL).total
    assert (total.final, total.aborted, total.estimated, total.unknown) == (2, 1, 1, 1)


def test_what_is_not_billable_or_no_tokens_is_not_usage(scope: None) -> None:
    make_event(billable=False)
    make_event(kind="storage")
    assert usage(Group.DAY).total == Totals()


def test_one_project(scope: None) -> None:
    make_event(project_id=UUID(int=10))
    make_event(project_id=UUID(int=11))
    assert usage(Group.DAY, project_id=UUID(int=11)).total.requests == 1


def test_ids_have_names_also_those_of_others_do_not() -> None:
    acme, globex = make_organization("acme"), make_organization("globex")
    key, foreign = make_key(acme, Scope.INFERENCE).key, make_key(globex, Scope.INFERENCE).key
    for each in (key, foreign):
        make_event(organization_id=acme.id, key_id=each.id, project_id=each.project_id)
    with organization_scope(acme.id):
        lines = usage_by(acme.id, groups=(Group.KEY, Group.PROJECT), period=MARCH).lines
    named = {line.values[0]: line.labels for line in lines}
    assert named[str(key.id)] == (str(key), "Default")
    assert named[str(foreign.id)] == (str(foreign.id), str(foreign.project_id))


def test_nobody_sees_anothers_usage() -> None:
    """Neither by the argument, nor when it is wrong by row-level security."""
    other = UUID(int=99)
    make_event(organization_id=other)
    make_event()
    with organization_scope(ORGANIZATION):
        assert usage(Group.DAY).total.requests == 1
        assert usage_by(other, groups=(Group.DAY,), period=MARCH).total == Totals()
        assert UsageEvent.objects.count() == 1
    assert UsageEvent.objects.count() == 0
    with platform_scope():
        assert UsageEvent.objects.count() == 2


def test_single_events_newest_first(scope: None) -> None:
    for hours in (1, 3, 2):
        make_event(occurred_at=NOON + timedelta(hours=hours), event_id=f"e{hours}")
    events = usage_event_list(ORGANIZATION, period=MARCH)
    assert [event.event_id for event in events] == ["e3", "e2", "e1"]


def test_two_queries_at_most(
    scope: None, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(20):
        make_event(key_id=UUID(int=number))
    with django_assert_max_num_queries(2):
        assert len(usage(Group.KEY).lines) == 20


@pytest.mark.parametrize(
    ("first", "last", "rule"),
    [
        (date(2026, 3, 2), date(2026, 3, 1), "period_order"),
        (date(2025, 1, 1), date(2026, 1, 2), "period_length"),
    ],
)
def test_impossible_periods_are_refused(first: date, last: date, rule: str) -> None:
    with pytest.raises(Invalid) as refusal:
        Period(first, last)
    assert refusal.value.rule == rule


def test_a_year_is_a_period() -> None:
    assert Period.last_days(366, today=date(2026, 3, 31)).first == date(2025, 3, 31)
    assert Period.last_days(1, today=date(2026, 3, 31)).first == date(2026, 3, 31)
