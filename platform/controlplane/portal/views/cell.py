"""Operators' pages of a cell, in the admin: admission and gateways; to look at only."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence

from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.urls import URLPattern, URLResolver, path
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from billing.export import safe_cell
from controlplane.admitted import AdmissionUnread
from controlplane.cell import CellNow, cell_now
from controlplane.gateways import gateways_now
from controlplane.portal import wording
from controlplane.portal.cell_tables import Table, admission_tables, gateway_tables, instant
from kernel.errors import NotFound
from tenants.models import Organization
from tenants.selectors import as_uuid

Urls = list[URLPattern | URLResolver]


def with_cell_pages(urls: Callable[[], Urls]) -> Callable[[], Urls]:
    """The admin's addresses with ours before them: its last one catches everything."""

    def both() -> Urls:
        pages: Urls = [
            path("admission/", admin.site.admin_view(admission), name="admission"),
            path("gateways/", admin.site.admin_view(gateways), name="gateways"),
        ]
        return [*pages, *urls()]

    return both


@require_safe
def admission(request: HttpRequest) -> HttpResponseBase:
    """Epoch, writers, holds, queues and slots of this cell's Redis."""
    try:
        now = cell_now()
    except AdmissionUnread:
        return _unread(request, _("Admission"))
    names = _names({tenant for pool in now.pools for tier in pool.tiers for tenant in tier.tenants})
    return _answer(
        request,
        _("Admission"),
        admission_tables(now, names),
        facts=_epoch(now),
        text=_("What this cell's Redis holds right now."),
    )


@require_safe
def gateways(request: HttpRequest) -> HttpResponseBase:
    """The gateway processes of this cell."""
    try:
        found = gateways_now(at=timezone.now())
    except AdmissionUnread:
        return _unread(request, _("Gateways"))
    speaking = [each for each in found if not each.is_silent]
    facts = [
        (_("Processes"), str(len(speaking)), _("that speak now")),
        (_("Silent"), str(len(found) - len(speaking)), _("that spoke in the last week")),
        (_("Streams"), str(sum(each.gauge("streams") for each in speaking)), _("under way")),
        (
            _("Ejected"),
            str(len({name for each in speaking for name in each.ejected})),
            _("engines that some process sends nothing"),
        ),
    ]
    return _answer(
        request,
        _("Gateways"),
        gateway_tables(found),
        facts=facts,
        text=_("What each process says of itself in this cell's Redis, once a second."),
    )


def _epoch(now: CellNow) -> list[tuple[str, str, str]]:
    if now.epoch is None:
        return [(_("Epoch"), _("none yet"), _("no gateway has called admission since Redis began"))]
    complete = _("complete") if now.epoch.is_complete else _("not complete")
    waited = (
        _("waits for %(names)s") % {"names": ", ".join(now.missing)}
        if now.missing
        else _("every writer of the roster is accounted for")
    )
    return [
        (_("Epoch"), now.epoch.id.partition("-")[0], now.epoch.id),
        (
            _("Since"),
            wording.duration(now.at - now.epoch.since),
            _("began %(instant)s") % {"instant": instant(now.epoch.since)},
        ),
        (_("Money"), complete, waited),
        (
            _("Held"),
            wording.dollars(sum(each.held_nano for each in now.writers)),
            _("for %(count)d open calls") % {"count": sum(each.holds for each in now.writers)},
        ),
    ]


def _names(tenants: set[str]) -> dict[str, str]:
    """Short names by id; what is no id stands there as Redis has it."""
    ids = [id_ for each in tenants if (id_ := as_uuid(each)) is not None]
    rows = Organization.objects.filter(id__in=ids).values_list("id", "slug")
    return {str(id_): slug for id_, slug in rows}


def _answer(
    request: HttpRequest,
    title: str,
    tables: Sequence[Table],
    *,
    facts: Sequence[tuple[str, str, str]],
    text: str,
) -> HttpResponseBase:
    wanted = request.GET.get("format", "")
    if wanted == "json":
        rows = {
            table.key: [dict(zip(table.headers, row, strict=True)) for row in table.rows]
            for table in tables
        }
        said = {label: {"value": figure, "text": more} for label, figure, more in facts}
        return JsonResponse({"cell": settings.TESSERA_CELL, "facts": said, **rows})
    if wanted == "csv":
        return _csv(tables, request.GET.get("table", ""))
    context = {**admin.site.each_context(request), "title": title, "text": text}
    context |= {"cell": settings.TESSERA_CELL, "facts": facts, "tables": tables}
    return render(request, "admin/cell.html", context)


def _unread(request: HttpRequest, title: str) -> HttpResponse:
    context = {**admin.site.each_context(request), "title": title, "is_unread": True}
    return render(request, "admin/cell.html", context | {"cell": settings.TESSERA_CELL}, status=503)


def _csv(tables: Sequence[Table], key: str) -> HttpResponse:
    table = next((table for table in tables if table.key == key), None)
    if table is None:
        raise NotFound
    answer = HttpResponse(content_type="text/csv; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="{table.key}.csv"'
    writer = csv.writer(answer)
    writer.writerow(table.headers)
    writer.writerows([[safe_cell(cell) for cell in row] for row in table.rows])
    return answer
