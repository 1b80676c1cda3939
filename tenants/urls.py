from __future__ import annotations

from django.urls import path

from tenants import api

urlpatterns = [
    path("session", api.SessionView.as_view()),
    path("organizations", api.OrganizationsView.as_view()),
    path("organizations/<str:organization>", api.OrganizationDetailView.as_view()),
    path("projects", api.ProjectsView.as_view()),
    path("projects/<uuid:project>", api.ProjectDetailView.as_view()),
    path("projects/<uuid:project>/limits", api.ProjectLimitsView.as_view()),
    path("members", api.MembersView.as_view()),
    path("members/<uuid:member>", api.MemberDetailView.as_view()),
    path("keys", api.KeysView.as_view()),
    path("keys/<uuid:key>", api.KeyDetailView.as_view()),
    path("keys/<uuid:key>/limits", api.KeyLimitsView.as_view()),
    path("keys/<uuid:key>/rotate", api.KeyRotationView.as_view()),
    path("audit", api.AuditView.as_view()),
    path("plans", api.PlansView.as_view()),
]
