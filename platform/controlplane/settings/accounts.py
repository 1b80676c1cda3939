"""People: sign-in by e-mail address (django-allauth), passwords, and who may open an account."""

from __future__ import annotations

from . import environment

AUTH_USER_MODEL = "tenants.User"
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]

PASSWORD_HASHERS = ["django.contrib.auth.hashers.Argon2PasswordHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 12},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "/"

TESSERA_SIGNUP = environment.flag("TESSERA_SIGNUP")

ACCOUNT_ADAPTER = "controlplane.accounts.AccountAdapter"
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*", "password2*"]
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
# Where anybody may open an account, an address is nobody's until its owner has said so.
ACCOUNT_EMAIL_VERIFICATION = "mandatory" if TESSERA_SIGNUP else "none"
ACCOUNT_SESSION_REMEMBER = False
ACCOUNT_LOGOUT_ON_PASSWORD_CHANGE = True
ACCOUNT_RATE_LIMITS = {
    # Per address of the client, and per account whatever the address.
    "login": "30/m/ip",
    "login_failed": "20/m/ip,5/5m/key",
}
