"""What a developer's error page may show: never a secret, also where debugging is on."""

from __future__ import annotations

import re

from django.http import HttpRequest
from django.views.debug import SafeExceptionReporterFilter


class ErrorPageFilter(SafeExceptionReporterFilter):
    """Hides addresses too, which hold passwords; what is marked sensitive, in debug mode too."""

    hidden_settings = re.compile(
        "API|AUTH|TOKEN|KEY|SECRET|PASS|SIGNATURE|HTTP_COOKIE|PEPPER|SALT|_URL", re.IGNORECASE
    )

    def is_active(self, request: HttpRequest | None) -> bool:
        return True
