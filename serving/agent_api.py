"""The door for engine agents: orders out, artifact files out, reports in. JSON of ``contracts``, a
token per replica.

Plain Django views: agents are parts of ours, not customers, and files pass through here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps

import msgspec
from django.conf import settings
from django.http import FileResponse, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST

from kernel.errors import DomainError, Invalid
from serving import services
from serving.artifacts.folders import object_store
from serving.contracts import AgentOrders, AgentReport
from serving.selectors import fleet
from serving.tokens import replica_token_matches
from tenants.scope import platform_scope

LONGEST_WAIT_SECONDS = 30.0
LARGEST_REPORT_BYTES = 1 << 20
_LOOK_EVERY_SECONDS = 0.25

View = Callable[..., HttpResponseBase]


def for_agents(view: View) -> View:
    """Only the replica's own agent passes; refusals are our one shape of error, without a page."""

    @csrf_exempt
    @wraps(view)
    def guarded(request: HttpRequest, replica: str, **rest: str) -> HttpResponseBase:
        if not replica_token_matches(_secret(), replica, _bearer(request)):
            return HttpResponse(status=401, headers={"WWW-Authenticate": "Bearer"})
        try:
            return view(request, replica, **rest)
        except DomainError as error:
            body = msgspec.json.encode({"error": {"code": error.code, "message": error.message}})
            return HttpResponse(body, status=error.status, content_type="application/json")

    return guarded


@for_agents
@require_GET
def orders(request: HttpRequest, replica: str) -> HttpResponseBase:
    """The replica's orders: at once where they differ from ``etag``, else when they do, else 304
    after ``wait``.
    """
    known = request.GET.get("etag", "")
    deadline = time.monotonic() + _wait_seconds(request)
    while (found := _orders_now(replica)).etag == known:
        if time.monotonic() >= deadline:
            return HttpResponse(status=304)
        time.sleep(_LOOK_EVERY_SECONDS)
    return HttpResponse(msgspec.json.encode(found), content_type="application/json")


@for_agents
@require_GET
def artifact_file(request: HttpRequest, replica: str, digest: str, name: str) -> HttpResponseBase:  # noqa: ARG001
    with platform_scope():
        sha256 = fleet.ordered_file(replica, digest=digest, name=name)
    return FileResponse(object_store().open(sha256), content_type="application/octet-stream")


@for_agents
@require_POST
def report(request: HttpRequest, replica: str) -> HttpResponseBase:
    raw = request.read(LARGEST_REPORT_BYTES + 1)
    if len(raw) > LARGEST_REPORT_BYTES:
        raise Invalid("The report is too large.", rule="report_size")
    try:
        received = msgspec.json.decode(raw, type=AgentReport)
    except msgspec.DecodeError as error:
        raise Invalid(f"Not a report: {error}", rule="report_shape") from error
    if received.replica != replica:
        raise Invalid("The report is about another replica.", rule="report_replica")
    services.report_accept(received)
    return HttpResponse(status=204)


def _orders_now(replica: str) -> AgentOrders:
    with platform_scope():
        return fleet.agent_orders(replica)


def _wait_seconds(request: HttpRequest) -> float:
    try:
        wanted = float(request.GET.get("wait", "0"))
    except ValueError as error:
        raise Invalid("wait must be a number of seconds.", param="wait") from error
    return min(max(wanted, 0.0), LONGEST_WAIT_SECONDS)


def _bearer(request: HttpRequest) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else ""


def _secret() -> bytes:
    return bytes.fromhex(settings.TESSERA_ENGINE_KEY)
