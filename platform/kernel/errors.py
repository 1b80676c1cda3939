"""What can go wrong, in words every room shares.

DomainError
    Invalid              the caller's input breaks a rule            422
    Forbidden            the caller is known but may not              403
    NotFound             absent, or somebody else's: the same thing   404
    Conflict             the state does not allow it now              409
    QuotaExceeded        the caller's own limit; try later            429
    Unavailable          our side; try later                          503

Two axes are enough: whose fault it is (``status``) and whether trying again can help
(``retryable``).
"""

from __future__ import annotations


class DomainError(Exception):
    """A refusal with a stable machine ``code`` and a message that may be shown to the caller.

    ``rule`` names the rule that was broken, ``param`` the input that broke it, where there is one.
    """

    code = "error"
    status = 500
    retryable = False
    default_message = "Something went wrong."

    def __init__(
        self,
        message: str = "",
        *,
        code: str = "",
        param: str | None = None,
        rule: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        self.message = message or self.default_message
        if code:
            self.code = code
        self.param = param
        self.rule = rule
        self.retry_after_seconds = retry_after_seconds
        super().__init__(self.message)


class Invalid(DomainError):
    code = "invalid"
    status = 422
    default_message = "The request breaks a rule."


class Forbidden(DomainError):
    code = "forbidden"
    status = 403
    default_message = "Your role does not allow this."


class NotFound(DomainError):
    code = "not_found"
    status = 404
    default_message = "There is nothing here by that name."


class Conflict(DomainError):
    code = "conflict"
    status = 409
    default_message = "The present state does not allow this."


class QuotaExceeded(DomainError):
    code = "quota_exceeded"
    status = 429
    retryable = True
    default_message = "A limit of yours is reached."


class Unavailable(DomainError):
    code = "unavailable"
    status = 503
    retryable = True
    default_message = "Not available right now; try again shortly."
