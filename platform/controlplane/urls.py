"""Every door of the control plane: pages, operators' site, REST API, the engine agents' door."""

from __future__ import annotations

from allauth.account.decorators import secure_admin_login
from django.contrib import admin
from django.urls import include, path

from controlplane.portal.views.cell import with_cell_pages

admin.site.get_urls = with_cell_pages(admin.site.get_urls)  # type: ignore[method-assign]
admin.site.login = secure_admin_login(admin.site.login)  # type: ignore[method-assign]

urlpatterns = [
    path("admin/", admin.site.urls),
    path("accounts/", include("allauth.account.urls")),
    path("api/v1/", include("controlplane.reference")),
    path("api/v1/", include("tenants.urls")),
    path("api/v1/", include("controlplane.limits_api")),
    path("api/v1/", include("serving.urls")),
    path("api/v1/", include("billing.urls")),
    path("agent/v1/", include("serving.agent_urls")),
    path("", include("controlplane.portal.urls")),
]

handler404 = "controlplane.api.not_found"
handler500 = "controlplane.api.server_error"
