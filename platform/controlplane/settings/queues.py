"""Celery: PostgreSQL rows are the truth, a message only says "look soon"."""

from __future__ import annotations

from . import environment

CELERY_BROKER_URL = environment.text("CELERY_BROKER_URL", "redis://127.0.0.1:6379/1")
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
# Publishing a hint never holds up the request that sent it: the sweep finds the work anyway.
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "socket_timeout": 5,
    "socket_connect_timeout": 2,
    "visibility_timeout": 600,
}
CELERY_TASK_PUBLISH_RETRY = False
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_SERIALIZER = "json"
CELERY_RESULT_SERIALIZER = "json"
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TASK_TIME_LIMIT = 300
CELERY_TASK_SOFT_TIME_LIMIT = 270

CELERY_BEAT_SCHEDULE = {
    "serving-sweep": {"task": "serving.tasks.sweep", "schedule": 10.0},
    "key-use": {"task": "controlplane.tasks.key_use", "schedule": 60.0},
    "billing-partitions": {"task": "billing.tasks.partitions", "schedule": 24 * 3600.0},
}
