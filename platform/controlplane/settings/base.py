"""What holds everywhere. ``dev``, ``test`` and ``prod`` start from here; integrations have their
own modules.
"""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit

from . import environment
from .accounts import *  # noqa: F403
from .databases import database
from .logs import *  # noqa: F403
from .mail import mail_server
from .objects import *  # noqa: F403
from .portal import *  # noqa: F403
from .portal import PORTAL_APPS
from .queues import *  # noqa: F403
from .rest import *  # noqa: F403
from .serving import *  # noqa: F403

PROJECT_DIR = Path(__file__).resolve().parents[3]

SECRET_KEY = environment.text("SECRET_KEY")
DEBUG = False

# What this installation is called, and where its parts are.
TESSERA_HOME = environment.folder("TESSERA_HOME", PROJECT_DIR / ".tessera")
TESSERA_CELL = environment.text("TESSERA_CELL", "local")
TESSERA_NODE = environment.text("TESSERA_NODE", socket.gethostname())
TESSERA_PORTAL_PORT = environment.number("TESSERA_PORTAL_PORT", 8000)
TESSERA_GATEWAY_PORT = environment.number("TESSERA_GATEWAY_PORT", 8080)
TESSERA_PORTAL_URL = environment.text(
    "TESSERA_PORTAL_URL", f"http://127.0.0.1:{TESSERA_PORTAL_PORT}"
)
TESSERA_GATEWAY_URL = environment.text(
    "TESSERA_GATEWAY_URL", f"http://127.0.0.1:{TESSERA_GATEWAY_PORT}"
)
TESSERA_CONTROL_URL = environment.text("TESSERA_CONTROL_URL", TESSERA_PORTAL_URL)
TESSERA_RUN = environment.folder("TESSERA_RUN", TESSERA_HOME / "run")
TESSERA_SUPERVISOR_SOCKET = environment.text(
    "TESSERA_SUPERVISOR_SOCKET", str(TESSERA_RUN / "supervisor.sock")
)
TESSERA_ENGINE_PYTHON = environment.text("TESSERA_ENGINE_PYTHON")
TESSERA_DEMO_BASE = environment.text("TESSERA_DEMO_BASE")

# Secrets are hexadecimal; a key id is logged, a key never is.
TESSERA_KEY_PEPPER = environment.text("TESSERA_KEY_PEPPER")
TESSERA_DOCUMENT_KEY = environment.text("TESSERA_DOCUMENT_KEY")
TESSERA_SALT_KEY = environment.text("TESSERA_SALT_KEY")
TESSERA_ENGINE_KEY = environment.text("TESSERA_ENGINE_KEY")

REDIS_URL = environment.text("REDIS_URL", "redis://127.0.0.1:6379/0")

DATABASES = {
    "default": database(
        environment.text("DATABASE_URL", "postgresql://tessera_app@/tessera"),
        variable="DATABASE_URL",
    ),
    "owner": database(
        environment.text("TESSERA_DATABASE_OWNER_URL", "postgresql://tessera_owner@/tessera"),
        variable="TESSERA_DATABASE_OWNER_URL",
        timeouts=False,
    ),
}

INSTALLED_APPS = [
    *PORTAL_APPS,
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "allauth",
    "allauth.account",
    "controlplane",
    "tenants",
    "serving",
    "billing",
]

MIDDLEWARE = [
    "controlplane.middleware.RequestIdentity",
    "controlplane.health.Health",
    "django.middleware.security.SecurityMiddleware",
    "controlplane.middleware.ContentSecurityPolicy",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "controlplane.middleware.AdminScope",
]

ROOT_URLCONF = "controlplane.urls"
WSGI_APPLICATION = "controlplane.wsgi.application"
ASGI_APPLICATION = "controlplane.asgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": environment.text("TESSERA_CACHE_REDIS_URL", REDIS_URL),
        "KEY_PREFIX": "tessera:cache",
        "OPTIONS": {"socket_timeout": 1, "socket_connect_timeout": 1},
    }
}

globals().update(mail_server(environment.text("EMAIL_URL"), folder=TESSERA_HOME / "mail"))
DEFAULT_FROM_EMAIL = environment.text("DEFAULT_FROM_EMAIL", "tessera@localhost")

LANGUAGE_CODE = "en"
USE_I18N = True
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "/static/"
# Without a folder that `collectstatic` filled, files are served from where they lie: no build step.
STATIC_ROOT = environment.text("TESSERA_STATIC_ROOT") or None
WHITENOISE_USE_FINDERS = STATIC_ROOT is None

# Where security depends on how the portal is reached, its public address decides.
_portal = urlsplit(TESSERA_PORTAL_URL)
_secure = _portal.scheme == "https"
ALLOWED_HOSTS = environment.names(
    "ALLOWED_HOSTS", f"{_portal.hostname or 'localhost'},localhost,127.0.0.1,[::1]"
)
CSRF_TRUSTED_ORIGINS = environment.names("CSRF_TRUSTED_ORIGINS", TESSERA_PORTAL_URL)
SESSION_COOKIE_NAME = "__Host-tessera_session" if _secure else "tessera_session"
SESSION_COOKIE_AGE = 12 * 3600
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = _secure
CSRF_COOKIE_NAME = "__Host-tessera_csrf" if _secure else "tessera_csrf"
CSRF_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SECURE = _secure
CSRF_FAILURE_VIEW = "controlplane.api.csrf_failure"
SECURE_HSTS_SECONDS = 31_536_000 if _secure else 0
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
DEFAULT_EXCEPTION_REPORTER_FILTER = "controlplane.debug.ErrorPageFilter"
if environment.flag("TESSERA_BEHIND_TLS_PROXY"):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

# A revoked key's id is handed to this function once the revocation is committed.
TESSERA_KEY_REVOKED_RECEIVER = "controlplane.push.key_revoked"
