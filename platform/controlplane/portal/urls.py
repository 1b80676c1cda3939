"""The portal's addresses. The first word of a name is the section it belongs to."""

from __future__ import annotations

from django.urls import include, path

from controlplane.portal.views import audit, entrance, keys, members, usage

app_name = "portal"

_organization = [
    path("keys/", keys.key_list, name="keys"),
    path("keys/<uuid:key>/rotate/", keys.rotate, name="keys-rotate"),
    path("keys/<uuid:key>/revoke/", keys.revoke, name="keys-revoke"),
    path("usage/", usage.usage, name="usage"),
    path("usage.csv", usage.csv, name="usage-csv"),
    path("members/", members.members, name="members"),
    path("members/<uuid:membership>/role/", members.role, name="members-role"),
    path("members/<uuid:membership>/remove/", members.remove, name="members-remove"),
    path("audit/", audit.audit, name="audit"),
]

urlpatterns = [
    path("", entrance.start, name="start"),
    path("preferences/theme/", entrance.theme, name="theme"),
    path("o/<slug:organization>/", include(_organization)),
]
