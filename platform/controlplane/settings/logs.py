"""One line per record on standard error; whoever runs the process keeps them."""

from __future__ import annotations

from . import environment

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": "controlplane.logs.LineFormatter"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": environment.text("LOG_LEVEL", "INFO")},
    "loggers": {
        # Django's own handlers would mail administrators and print debug pages.
        "django": {"handlers": [], "level": "INFO", "propagate": True},
        "django.server": {"handlers": [], "propagate": True},
        # A line for each request that we make ourselves, the looks at what starts among them.
        "httpx2": {"level": "WARNING"},
        # A line for each task that came and each that went well, six times a minute for ever.
        "celery.worker.strategy": {"level": "WARNING"},
        "celery.app.trace": {"level": "WARNING"},
    },
}
