"""Signing in with e-mail and password, under the same limit on failures as the portal's page."""

from __future__ import annotations

from allauth.account.adapter import get_adapter
from allauth.account.utils import has_verified_email
from django.conf import settings
from django.contrib.auth import login
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.views.decorators.debug import sensitive_variables

from kernel.errors import DomainError, QuotaExceeded
from tenants.models import User

_LOCKED_SECONDS = 300


class SignInRefused(DomainError):
    """One answer for an unknown address, a wrong password and a closed account."""

    code = "sign_in_refused"
    status = 401
    default_message = "E-mail address and password do not belong together."


@sensitive_variables("password")
def session_open(request: HttpRequest, *, email: str, password: str) -> User:
    """Sign somebody in and put a new session in place of the old one."""
    try:
        user = get_adapter(request).authenticate(request, email=email, password=password)
    except ValidationError as error:
        raise QuotaExceeded(
            "Too many failed sign-ins. Wait five minutes, or reset the password by mail.",
            code="too_many_sign_ins",
            retry_after_seconds=_LOCKED_SECONDS,
        ) from error
    if not isinstance(user, User) or not user.is_active:
        raise SignInRefused
    if settings.ACCOUNT_EMAIL_VERIFICATION == "mandatory" and not has_verified_email(
        user, user.email
    ):
        raise SignInRefused(
            "Verify your e-mail address first: sign in at the portal to get the mail again.",
            code="email_not_verified",
        )
    login(request, user)
    return user
