"""The tenants' pages and the look of the operators' admin (Unfold)."""

from __future__ import annotations

from django.templatetags.static import static

PORTAL_APPS = ["controlplane.portal", "django_htmx"]

UNFOLD = {
    "SITE_TITLE": "Tessera operations",
    "SITE_HEADER": "Tessera",
    "SITE_SUBHEADER": "Operations",
    "SITE_URL": "/",
    "SITE_SYMBOL": "grid_view",
    "SITE_ICON": lambda request: static("portal/mark.svg"),  # noqa: ARG005 - Unfold hands the request
    "SITE_FAVICONS": [
        {
            "rel": "icon",
            "type": "image/svg+xml",
            "href": lambda request: static("portal/mark.svg"),  # noqa: ARG005
        }
    ],
    "SHOW_HISTORY": True,
    "SHOW_VIEW_ON_SITE": False,
    "DASHBOARD_CALLBACK": "controlplane.portal.operations.dashboard",
    "BORDER_RADIUS": "6px",
    "COLORS": {
        "primary": {
            "50": "#eef0ff",
            "100": "#e1e4ff",
            "200": "#c8ccff",
            "300": "#a5a9ff",
            "400": "#8b90ff",
            "500": "#6a6ef0",
            "600": "#4b4fd9",
            "700": "#3d40bf",
            "800": "#33369a",
            "900": "#2d3079",
            "950": "#1d1f3d",
        }
    },
    "SIDEBAR": {
        "show_search": True,
        "show_all_applications": True,
        "navigation": "controlplane.portal.operations.navigation",
    },
}
