"""REST: sessions, organizations, projects, members, keys, the audit record, plans."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar
from uuid import UUID

from django.conf import settings
from django.contrib.auth import logout
from django.middleware.csrf import get_token
from django.utils.decorators import method_decorator
from django.views.decorators.csrf import csrf_protect
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.exceptions import NotAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from kernel.errors import Forbidden
from tenants import selectors, services
from tenants import serializers as shapes
from tenants.access import Caller, Permission
from tenants.authentication import client_address
from tenants.models import KeyEnvironment, Quota, Role, Scope, User
from tenants.rest import OrganizationView, body
from tenants.scope import organization_scope
from tenants.sessions import session_open


@method_decorator(csrf_protect, name="dispatch")
class SessionView(APIView):
    """Signing in and out with e-mail and password, for browsers and scripts of people."""

    permission_classes = ()

    @extend_schema(responses=shapes.SessionShape)
    def get(self, request: Request) -> Response:
        """Who is signed in, and the CSRF token that every change needs as ``X-CSRFToken``."""
        return Response(_session(request, request.user))

    @extend_schema(request=shapes.SignIn, responses=shapes.SessionShape)
    def post(self, request: Request) -> Response:
        """Sign in. The session's cookie is in the answer, and a new CSRF token."""
        given = body(request, shapes.SignIn)
        user = session_open(request._request, email=given["email"], password=given["password"])
        return Response(_session(request, user))

    @extend_schema(request=None, responses={204: None})
    def delete(self, request: Request) -> Response:
        """Sign out."""
        logout(request._request)
        return Response(status=204)


class OrganizationsView(APIView):
    """The caller's organizations."""

    permission_classes = ()

    @extend_schema(responses=shapes.MembershipShape(many=True))
    def get(self, request: Request) -> Response:
        """Every organization that the person belongs to, with their role; a key sees its own."""
        if isinstance(request.auth, Caller):
            with organization_scope(request.auth.organization):
                found = selectors.organization_get(request.auth.organization)
                return Response([shapes.organization_with_role(found, None)])
        memberships = selectors.membership_list_of_user(_person(request))
        return Response(
            [shapes.organization_with_role(each.organization, each.role) for each in memberships]
        )

    @extend_schema(request=shapes.NewOrganization, responses={201: shapes.OrganizationShape})
    def post(self, request: Request) -> Response:
        """Found an organization and own it."""
        user = _person(request)
        if not (user.is_staff or settings.TESSERA_SIGNUP):
            raise Forbidden(
                "Organizations are founded by the operators of this installation; ask one.",
                rule="signup_closed",
            )
        caller = Caller.person(user, address=client_address(request))
        given = body(request, shapes.NewOrganization)
        made = services.organization_create(caller, owner=user, **given)
        with organization_scope(made.id):
            return Response(shapes.organization(made), status=201)


class OrganizationDetailView(OrganizationView):
    permissions: ClassVar = {
        "GET": Permission.ORGANIZATION_READ,
        "PATCH": Permission.ORGANIZATION_MANAGE,
    }

    def organization_named(self) -> str:
        return str(self.kwargs["organization"])

    @extend_schema(responses=shapes.OrganizationShape)
    def get(self, request: Request, organization: str) -> Response:
        """Name, plan, and the limits that hold."""
        return Response(shapes.organization(selectors.organization_get(self.organization)))

    @extend_schema(request=shapes.Renaming, responses=shapes.OrganizationShape)
    def patch(self, request: Request, organization: str) -> Response:
        """Rename it. The short name stays, because addresses are made of it."""
        renamed = services.organization_rename(
            self.organization, caller=self.caller, **self.parsed(shapes.Renaming)
        )
        return Response(shapes.organization(renamed))


class ProjectsView(OrganizationView):
    permissions: ClassVar = {
        "GET": Permission.ORGANIZATION_READ,
        "POST": Permission.PROJECT_MANAGE,
    }

    @extend_schema(responses=shapes.ProjectShape(many=True))
    def get(self, request: Request) -> Response:
        return self.page(selectors.project_list(self.organization), shapes.ProjectShape)

    @extend_schema(request=shapes.NewProject, responses={201: shapes.ProjectShape})
    def post(self, request: Request) -> Response:
        made = services.project_create(
            self.organization, caller=self.caller, **self.parsed(shapes.NewProject)
        )
        return Response(shapes.ProjectShape(made).data, status=201)


class ProjectDetailView(OrganizationView):
    permissions: ClassVar = {
        "GET": Permission.ORGANIZATION_READ,
        "PATCH": Permission.PROJECT_MANAGE,
    }

    @extend_schema(responses=shapes.ProjectShape)
    def get(self, request: Request, project: UUID) -> Response:
        found = selectors.project_get(self.organization, project)
        return Response(shapes.ProjectShape(found).data)

    @extend_schema(request=shapes.Renaming, responses=shapes.ProjectShape)
    def patch(self, request: Request, project: UUID) -> Response:
        renamed = services.project_rename(
            self.organization, project, caller=self.caller, **self.parsed(shapes.Renaming)
        )
        return Response(shapes.ProjectShape(renamed).data)


class ProjectLimitsView(OrganizationView):
    permissions: ClassVar = {
        "GET": Permission.ORGANIZATION_READ,
        "PATCH": Permission.LIMIT_MANAGE,
    }

    @extend_schema(responses=shapes.OwnLimitsShape)
    def get(self, request: Request, project: UUID) -> Response:
        """The project's own limits; its calls are held to the organization's, too."""
        found = selectors.project_get(self.organization, project)
        own = selectors.project_quota(self.organization, found.id) or Quota()
        return Response(shapes.OwnLimitsShape(own).data)

    @extend_schema(request=shapes.LimitChanges, responses=shapes.OwnLimitsShape)
    def patch(self, request: Request, project: UUID) -> Response:
        """Change them; gateways hold to it within 5 s. None may be above the organization's."""
        changed = services.project_limits_set(
            self.organization, project, caller=self.caller, limits=self.parsed(shapes.LimitChanges)
        )
        return Response(shapes.OwnLimitsShape(changed).data)


class MembersView(OrganizationView):
    permissions: ClassVar = {"GET": Permission.MEMBER_READ, "POST": Permission.MEMBER_MANAGE}

    @extend_schema(responses=shapes.MemberShape(many=True))
    def get(self, request: Request) -> Response:
        return self.page(selectors.member_list(self.organization), shapes.MemberShape)

    @extend_schema(request=shapes.NewMember, responses={201: shapes.MemberShape})
    def post(self, request: Request) -> Response:
        """Give a person a role. Whoever has no account gets one and sets a password by mail."""
        given = self.parsed(shapes.NewMember)
        made = services.member_add(
            self.organization, caller=self.caller, email=given["email"], role=Role(given["role"])
        )
        return Response(shapes.MemberShape(made).data, status=201)


class MemberDetailView(OrganizationView):
    # Anybody who may look may try to leave; the service asks for more where it is about others.
    permissions: ClassVar = {
        "GET": Permission.MEMBER_READ,
        "PATCH": Permission.MEMBER_MANAGE,
        "DELETE": Permission.MEMBER_READ,
    }

    @extend_schema(responses=shapes.MemberShape)
    def get(self, request: Request, member: UUID) -> Response:
        found = selectors.member_get(self.organization, member)
        return Response(shapes.MemberShape(found).data)

    @extend_schema(request=shapes.RoleChange, responses=shapes.MemberShape)
    def patch(self, request: Request, member: UUID) -> Response:
        role = Role(self.parsed(shapes.RoleChange)["role"])
        changed = services.member_role_change(
            self.organization, member, caller=self.caller, role=role
        )
        return Response(shapes.MemberShape(changed).data)

    @extend_schema(responses={204: None})
    def delete(self, request: Request, member: UUID) -> Response:
        """Remove a member, or leave. The last owner stays."""
        services.member_remove(self.organization, member, caller=self.caller)
        return Response(status=204)


class KeysView(OrganizationView):
    permissions: ClassVar = {"GET": Permission.KEY_READ, "POST": Permission.KEY_MANAGE}

    @extend_schema(responses=shapes.KeyShape(many=True))
    def get(self, request: Request) -> Response:
        return self.page(selectors.key_list(self.organization), shapes.KeyShape)

    @extend_schema(request=shapes.NewKeyInput, responses={201: shapes.NewKeyShape})
    def post(self, request: Request) -> Response:
        """Make a key. ``secret`` is shown in this answer only."""
        given = self.parsed(shapes.NewKeyInput)
        made = services.key_create(
            self.organization,
            caller=self.caller,
            name=given["name"],
            scopes=[Scope(scope) for scope in given["scopes"]],
            project=given.get("project", ""),
            environment=KeyEnvironment(given["environment"]),
            models=given["models"],
            expires_at=given.get("expires_at"),
        )
        return _secret_once(made)


class KeyDetailView(OrganizationView):
    permissions: ClassVar = {"GET": Permission.KEY_READ, "DELETE": Permission.KEY_MANAGE}

    @extend_schema(responses=shapes.KeyShape)
    def get(self, request: Request, key: UUID) -> Response:
        return Response(shapes.KeyShape(selectors.key_get(self.organization, key)).data)

    @extend_schema(responses=shapes.KeyShape)
    def delete(self, request: Request, key: UUID) -> Response:
        """Revoke it. Gateways know within a second; running streams of it end within ten."""
        revoked = services.key_revoke(self.organization, key, caller=self.caller)
        return Response(shapes.KeyShape(revoked).data)


class KeyLimitsView(OrganizationView):
    permissions: ClassVar = {"GET": Permission.KEY_READ, "PATCH": Permission.LIMIT_MANAGE}

    @extend_schema(responses=shapes.OwnLimitsShape)
    def get(self, request: Request, key: UUID) -> Response:
        """The key's own limits; its calls are held to its project's and organization's, too."""
        return Response(shapes.OwnLimitsShape(selectors.key_get(self.organization, key)).data)

    @extend_schema(request=shapes.LimitChanges, responses=shapes.OwnLimitsShape)
    def patch(self, request: Request, key: UUID) -> Response:
        """Change them; gateways hold to it within 5 s. None may be above those it is below."""
        changed = services.key_limits_set(
            self.organization, key, caller=self.caller, limits=self.parsed(shapes.LimitChanges)
        )
        return Response(shapes.OwnLimitsShape(changed).data)


class KeyRotationView(OrganizationView):
    permissions: ClassVar = {"POST": Permission.KEY_MANAGE}

    @extend_schema(request=shapes.Rotation, responses={201: shapes.NewKeyShape})
    def post(self, request: Request, key: UUID) -> Response:
        """A new key of the same rights; the old one works on for the overlap, then expires."""
        overlap = timedelta(seconds=self.parsed(shapes.Rotation)["overlap_seconds"])
        made = services.key_rotate(self.organization, key, caller=self.caller, overlap=overlap)
        return _secret_once(made)


class AuditView(OrganizationView):
    permissions: ClassVar = {"GET": Permission.AUDIT_READ}

    @extend_schema(
        parameters=[OpenApiParameter("verb"), OpenApiParameter("target")],
        responses=shapes.AuditShape(many=True),
    )
    def get(self, request: Request) -> Response:
        """Who did what, newest first; ``verb`` and ``target`` (an id) narrow it down."""
        query = request.query_params
        events = selectors.audit_list(
            self.organization, verb=query.get("verb", ""), target_id=query.get("target", "")
        )
        return self.page(events, shapes.AuditShape)


class PlansView(APIView):
    """The plans of this installation."""

    permission_classes = ()

    @extend_schema(responses=shapes.PlanShape(many=True))
    def get(self, request: Request) -> Response:
        if request.auth is None:
            _person(request)
        return Response(shapes.PlanShape(selectors.plan_list(), many=True).data)


def _person(request: Request) -> User:
    if isinstance(request.auth, Caller):
        raise Forbidden("This is for people who are signed in; a key cannot do it.")
    if not isinstance(request.user, User):
        raise NotAuthenticated
    return request.user


def _session(request: Request, user: Any) -> dict[str, Any]:
    """Nobody is signed in: ``user`` is null. Reading this also sets the CSRF cookie."""
    known = user if isinstance(user, User) else None
    memberships = selectors.membership_list_of_user(known) if known else []
    return {
        "user": shapes.UserShape(known).data if known else None,
        "organizations": [
            shapes.organization_with_role(each.organization, each.role) for each in memberships
        ],
        "csrf_token": get_token(request._request),
    }


def _secret_once(made: services.NewKey) -> Response:
    answer = Response({**shapes.KeyShape(made.key).data, "secret": made.secret}, status=201)
    answer["Cache-Control"] = "no-store"
    return answer
