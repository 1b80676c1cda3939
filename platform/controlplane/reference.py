"""The REST API's own description: the OpenAPI document and two ways to read it."""

from __future__ import annotations

from django.urls import path
from drf_spectacular.views import SpectacularAPIView, SpectacularRedocView, SpectacularSwaggerView

app_name = "reference"

urlpatterns = [
    path("schema", SpectacularAPIView.as_view(), name="schema"),
    path(
        "docs",
        SpectacularRedocView.as_view(url_name="reference:schema", template_name="reference.html"),
        name="docs",
    ),
    path("docs/try", SpectacularSwaggerView.as_view(url_name="reference:schema"), name="try"),
]
