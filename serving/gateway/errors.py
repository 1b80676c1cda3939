"""What the gateway refuses, in OpenAI's shape.

GatewayError
    BadRequest            the request breaks a rule                       400
    Unauthorized          no key, or none that is valid                   401
    NotAllowed            the key is valid and may not do this            403
    UnknownPath           there is nothing here                           404
    ModelNotFound         absent, or somebody else's: the same thing      404
    WrongMethod           the path exists, the method does not            405
    TooSlow               the request did not arrive in time              408
    TooLarge              the body is over its limit                      413
    WrongMedia            the body is not plain JSON                      415
    RateLimited           a limit of the caller's own: carries a delay    429
      TooManyFailedKeys   of an address, asked before any lookup          429
    QuotaUsedUp           the caller's money is spent: waiting is no help 429
    HeadTooLarge          the header block is over its limit              431
    InternalError         an error of ours                                500
    EngineFailed          the engine gave no usable answer                502
    Busy                  our side, try again: carries a delay            503
    WrongVersion          only HTTP/1.1 is spoken here                    505

429 is theirs, 503 is ours. ``retryable`` says whether the same request may succeed later; every
answer says it, too (``x-should-retry``), because stock clients else go by the status alone.
"""

from __future__ import annotations

from http import HTTPStatus

import msgspec

from kernel.errors import DomainError, QuotaExceeded, Unavailable
from serving.gateway.ratelimit_headers import retry_headers

INVALID = "invalid_request_error"
SERVER = "server_error"


class GatewayError(DomainError):
    """A refusal as a client sees it: ``type`` is OpenAI's, ``code`` is ours and stable."""

    type = INVALID
    headers = b""  # lines that this answer carries besides when to come back


class BadRequest(GatewayError):
    code = "invalid_request"
    status = 400
    default_message = "The request could not be understood."


class Unauthorized(GatewayError):
    """One class, one message: nobody learns from it whether a key ever existed."""

    code = "invalid_api_key"
    status = 401
    type = "authentication_error"
    default_message = (
        "No valid API key was given. Send one as 'Authorization: Bearer tsr_...';"
        " keys are made in the portal."
    )
    headers = b"www-authenticate: Bearer\r\n"


class NotAllowed(GatewayError):
    code = "insufficient_scope"
    status = 403
    type = "permission_error"
    default_message = "This API key lacks the scope 'inference'. Use a key that has it."


class UnknownPath(GatewayError):
    code = "unknown_path"
    status = 404
    default_message = (
        "There is nothing at this path. Served are GET /v1/models,"
        " POST /v1/chat/completions and POST /v1/completions."
    )


class ModelNotFound(GatewayError):
    code = "model_not_found"
    status = 404

    def __init__(self, name: str) -> None:
        super().__init__(
            f"The model '{name[:200]}' does not exist or you do not have access to it.",
            param="model",
        )


class WrongMethod(GatewayError):
    code = "method_not_allowed"
    status = 405
    default_message = "This path does not take that method."


class TooSlow(GatewayError):
    code = "request_timeout"
    status = 408
    retryable = True
    default_message = "The request did not arrive in time."


class TooLarge(GatewayError):
    code = "request_too_large"
    status = 413
    default_message = "The request body is too large."


class WrongMedia(GatewayError):
    code = "unsupported_media_type"
    status = 415
    default_message = "Send the body as plain JSON (application/json), not encoded or compressed."


class RateLimited(GatewayError, QuotaExceeded):
    """A limit over time: what was refused now is let through after the delay."""

    code = "rate_limit_exceeded"
    type = "rate_limit_error"


class TooManyFailedKeys(RateLimited):
    code = "too_many_failed_keys"
    default_message = (
        "Too many requests with invalid API keys came from your address. Keys that were not in use"
        " a moment ago are looked up again after the time that 'retry-after' says."
    )


class QuotaUsedUp(GatewayError, QuotaExceeded):
    """Money: nothing but a person changes it, so nobody should keep asking."""

    code = "insufficient_quota"
    type = "insufficient_quota"
    retryable = False


class HeadTooLarge(GatewayError):
    code = "headers_too_large"
    status = 431
    default_message = "The request's header block is too large."


class InternalError(GatewayError):
    code = "internal_error"
    status = 500
    type = SERVER
    retryable = True
    default_message = "An error of ours."


class EngineFailed(GatewayError):
    code = "engine_failed"
    status = 502
    type = SERVER
    retryable = True
    default_message = "The model's engine failed before the answer began; please try again."


class Busy(GatewayError, Unavailable):
    """Ours, not theirs: ``code`` says what is missing; the delay, when to come back."""

    code = "unavailable"
    status = 503
    type = SERVER


class WrongVersion(GatewayError):
    code = "http_version"
    status = 505
    default_message = "Only HTTP/1.1 is spoken here."


def error_body(error: DomainError) -> bytes:
    """``{"error": {...}}`` with OpenAI's four members, and nothing that differs per request."""
    kind = error.type if isinstance(error, GatewayError) else _type_for(error.status)
    return msgspec.json.encode(
        {
            "error": {
                "message": error.message,
                "type": kind,
                "param": error.param,
                "code": error.code,
            }
        }
    )


def error_headers(error: DomainError) -> bytes:
    """The header lines that tell a client whether and when to come back."""
    lines = retry_headers(is_worth_it=error.retryable, after_seconds=error.retry_after_seconds)
    return lines + error.headers if isinstance(error, GatewayError) else lines


def error_event(error: DomainError) -> bytes:
    """The same error inside a stream that has begun."""
    return b"data: " + error_body(error) + b"\n\n"


def _type_for(status: int) -> str:
    return SERVER if status >= HTTPStatus.INTERNAL_SERVER_ERROR else INVALID
