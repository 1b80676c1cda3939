"""An organization at a glance: what to do next, what answers, what was used."""

from __future__ import annotations

from datetime import UTC, datetime

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from billing.selectors import Group, Period, Usage, usage_by
from controlplane.portal import charts, checklist
from controlplane.portal.access import Member, member_page
from controlplane.portal.playground_key import is_playground_key
from controlplane.portal.views.usage import days_of
from serving import selectors as serving
from serving.models import DeploymentStatus
from tenants import selectors
from tenants.access import Permission

DAYS = 14
SHOWN_DEPLOYMENTS = 6


@require_safe
@member_page(Permission.ORGANIZATION_READ)
def home(request: HttpRequest, member: Member) -> HttpResponse:
    organization_id = member.organization.id
    period = Period.last_days(DAYS, today=datetime.now(UTC).date())
    used = usage_by(organization_id, groups=[Group.DAY], period=period)
    deployments = list(serving.deployment_list(organization_id))
    ready = [each for each in deployments if each.status == DeploymentStatus.READY]
    now = timezone.now()
    keys = [
        key
        for key in selectors.key_list(organization_id)
        if key.is_active(now) and not is_playground_key(key)
    ]
    progress = checklist.Progress(
        uploaded=serving.artifact_list(organization_id).exists(),
        deployed=bool(deployments),
        has_key=bool(keys),
        called=used.total.requests > 0,
    )
    context = {
        "member": member,
        "steps": checklist.steps(progress, member.caller),
        "deployments": deployments[:SHOWN_DEPLOYMENTS],
        "deployment_count": len(deployments),
        "ready_count": len(ready),
        "key_count": len(keys),
        "used": used,
        "days": DAYS,
        "chart": _chart(used),
    }
    return render(request, "portal/home.html", context)


def _chart(used: Usage) -> charts.Chart:
    by_day = {line.values[0]: line.totals for line in used.lines}
    days = [str(day) for day in days_of(used.period)]
    totals = [by_day.get(day) for day in days]
    values = {
        _("Input"): [each.input_tokens if each else 0 for each in totals],
        _("Output"): [each.output_tokens if each else 0 for each in totals],
    }
    return charts.stacked(days, values, rest=_("Others"))
