from __future__ import annotations

from django.urls import path

from serving import agent_api

urlpatterns = [
    path("replicas/<slug:replica>/orders", agent_api.orders),
    path("replicas/<slug:replica>/artifacts/<slug:digest>/<str:name>", agent_api.artifact_file),
    path("replicas/<slug:replica>/report", agent_api.report),
]
