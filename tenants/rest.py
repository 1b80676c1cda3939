"""What every REST view of every room is made of: permission, organization scope, strict input,
pages.

A view says which permission each method needs; the rest is: parse, call, present.

    class Deployments(OrganizationView):
        permissions = {"GET": Permission.MODEL_READ, "POST": Permission.MODEL_MANAGE}
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, ClassVar
from uuid import UUID

from django.db.models import QuerySet
from django.utils import timezone
from rest_framework import serializers
from rest_framework.exceptions import MethodNotAllowed, NotAuthenticated
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from kernel.errors import Invalid, NotFound
from tenants import selectors, services
from tenants.access import ActorType, Caller, Permission
from tenants.authentication import client_address
from tenants.models import Role, User
from tenants.scope import organization_scope


class Pages(CursorPagination):
    """``?limit=`` items a page, newest first; ``next`` and ``previous`` are addresses or null."""

    page_size = 50
    page_size_query_param = "limit"
    max_page_size = 200
    ordering = "-id"

    def get_paginated_response(self, data: Any) -> Response:
        links = {"next": self.get_next_link(), "previous": self.get_previous_link()}
        return Response({"items": data, **links})

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        link = {"type": "string", "format": "uri", "nullable": True}
        properties = {"items": schema, "next": link, "previous": link}
        return {"type": "object", "required": list(properties), "properties": properties}


class StrictSerializer(serializers.Serializer[Any]):
    """Input where a field that is not asked for is refused: nothing is ignored in silence."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            known = {name for name, field in self.fields.items() if not field.read_only}
            for name in data:
                if name not in known:
                    text = f"There is no input field {str(name)[:80]!r} here."
                    raise serializers.ValidationError({name: [text]}, code="unknown_field")
        return super().to_internal_value(data)


class OrganizationView(APIView):
    """A view about one organization: the key's own, or for a session the one in ``?organization=``.

    The method runs in that organization's scope, which is a transaction. A view that waits for its
    client or anybody else while it works sets ``scoped = False`` and opens short scopes itself.
    """

    permissions: ClassVar[Mapping[str, Permission]]
    scoped: ClassVar[bool] = True
    permission_classes = ()  # ``permissions`` is the whole rule
    pagination_class = Pages

    caller: Caller

    @property
    def organization(self) -> UUID:
        return self.caller.organization

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        with ExitStack() as self._scope:
            return super().dispatch(request, *args, **kwargs)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        needed = self.permissions.get("GET" if request.method == "HEAD" else request.method or "")
        if needed is None:
            raise MethodNotAllowed(request.method or "")
        self.caller = caller_in_organization(request, self.organization_named())
        self.caller.require(needed)
        if self.caller.actor_type is ActorType.KEY:
            services.keys_used({UUID(self.caller.actor_id): timezone.now()})
        if self.scoped:
            self._scope.enter_context(organization_scope(self.organization))

    def handle_exception(self, exc: Exception) -> Response:
        """A refused request leaves nothing behind: its transaction is rolled back before the answer
        is made.
        """
        self._scope.__exit__(type(exc), exc, exc.__traceback__)
        return super().handle_exception(exc)

    def organization_named(self) -> str:
        """The organization that the request names, by id or slug; empty where it names none."""
        return str(self.request.query_params.get("organization", ""))

    def parsed(self, serializer: type[serializers.Serializer[Any]]) -> dict[str, Any]:
        return body(self.request, serializer)

    def page(
        self,
        queryset: QuerySet[Any],
        serializer: type[serializers.BaseSerializer[Any]],
        ordering: str = "-id",
    ) -> Response:
        """One page of a list."""
        pages = self.pagination_class()
        pages.ordering = ordering
        rows = pages.paginate_queryset(queryset, self.request, view=self)
        return pages.get_paginated_response(serializer(rows, many=True).data)


def body(request: Request, serializer: type[serializers.Serializer[Any]]) -> dict[str, Any]:
    """The request's body after the serializer's rules; refuses what breaks them."""
    checked = serializer(data=request.data)
    checked.is_valid(raise_exception=True)
    return dict(checked.validated_data)


def caller_in_organization(request: Request, named: str) -> Caller:
    """Who calls, about which organization. Somebody else's organization is not found."""
    if isinstance(request.auth, Caller):
        return _key_in(request.auth, named)
    if isinstance(request.user, User):
        return _member_in(request, request.user, named)
    raise NotAuthenticated


def _key_in(caller: Caller, named: str) -> Caller:
    if named and named != str(caller.organization):
        with organization_scope(caller.organization):
            if selectors.organization_get(caller.organization).slug != named:
                raise NotFound(
                    "There is no organization of yours by that name.", param="organization"
                )
    return caller


def _member_in(request: Request, user: User, named: str) -> Caller:
    memberships = (
        [selectors.membership_of_user(user, named)]
        if named
        else selectors.membership_list_of_user(user)
    )
    if len(memberships) != 1:
        raise Invalid(
            "Say which organization this is about: ?organization=<id or short name>.",
            param="organization",
            rule="organization_named",
        )
    return Caller.member(
        user,
        organization_id=memberships[0].organization_id,
        role=Role(memberships[0].role),
        address=client_address(request),
    )
