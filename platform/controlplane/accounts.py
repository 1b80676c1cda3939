"""How allauth asks us about accounts."""

from __future__ import annotations

from allauth.account.adapter import DefaultAccountAdapter
from django.conf import settings
from django.http import HttpRequest


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc] # allauth says Any
    """Accounts are opened by invitation unless ``TESSERA_SIGNUP`` is set."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return bool(settings.TESSERA_SIGNUP)
