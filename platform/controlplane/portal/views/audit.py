"""Who did what in an organization, newest first."""

from __future__ import annotations

from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from controlplane.portal.access import Member, member_page
from kernel.errors import Invalid
from tenants import selectors
from tenants.access import Permission

PAGE_SIZE = 50


@require_safe
@member_page(Permission.AUDIT_READ)
def audit(request: HttpRequest, member: Member) -> HttpResponse:
    """A page of events; ``?before=<id>`` goes on after the last one shown. Ids sort by time."""
    events = selectors.audit_list(member.organization.id)
    before = request.GET.get("before", "")
    if before:
        events = events.filter(id__lt=_event_id(before))
    page = list(events[: PAGE_SIZE + 1])
    context = {
        "member": member,
        "events": page[:PAGE_SIZE],
        "older": page[PAGE_SIZE - 1].id if len(page) > PAGE_SIZE else None,
        "before": before,
    }
    return render(request, "portal/audit.html", context)


def _event_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise Invalid("before is the id of an event.", param="before") from None
