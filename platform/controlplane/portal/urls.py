"""The portal's addresses. The first word of a name is the section it belongs to."""

from __future__ import annotations

from django.urls import include, path

from controlplane.portal.views import (
    audit,
    deployments,
    entrance,
    home,
    keys,
    limits,
    members,
    models,
    organizations,
    playground,
    usage,
)

app_name = "portal"

_organization = [
    path("", home.home, name="home"),
    path("playground/", playground.playground, name="playground"),
    path("playground/key/", playground.key, name="playground-key"),
    path("models/", models.models, name="models"),
    path("models/new/", models.new, name="models-new"),
    path("models/<uuid:artifact>/", models.one, name="models-one"),
    path("models/<uuid:artifact>/status/", models.status, name="models-status"),
    path("models/<uuid:artifact>/delete/", models.delete, name="models-delete"),
    path("deployments/", deployments.deployments, name="deployments"),
    path("deployments/table/", deployments.table, name="deployments-table"),
    path("deployments/new/", deployments.new, name="deployments-new"),
    path("deployments/<uuid:deployment>/", deployments.one, name="deployments-one"),
    path("deployments/<uuid:deployment>/status/", deployments.status, name="deployments-status"),
    path("deployments/<uuid:deployment>/move/", deployments.move, name="deployments-move"),
    path("deployments/<uuid:deployment>/delete/", deployments.delete, name="deployments-delete"),
    path("keys/", keys.key_list, name="keys"),
    path("keys/<uuid:key>/rotate/", keys.rotate, name="keys-rotate"),
    path("keys/<uuid:key>/revoke/", keys.revoke, name="keys-revoke"),
    path("usage/", usage.usage, name="usage"),
    path("usage.csv", usage.csv, name="usage-csv"),
    path("limits/", limits.limits, name="limits"),
    path("limits/now/", limits.now, name="limits-now"),
    path("limits/key/", limits.choose, name="limits-choose"),
    path("limits/key/<uuid:key>/", limits.key, name="limits-key"),
    path("limits/project/<uuid:project>/", limits.project, name="limits-project"),
    path("members/", members.members, name="members"),
    path("members/<uuid:membership>/role/", members.role, name="members-role"),
    path("members/<uuid:membership>/remove/", members.remove, name="members-remove"),
    path("audit/", audit.audit, name="audit"),
]

urlpatterns = [
    path("", entrance.start, name="start"),
    path("organizations/new/", organizations.new, name="organizations-new"),
    path("preferences/theme/", entrance.theme, name="theme"),
    path("o/<slug:organization>/", include(_organization)),
]
