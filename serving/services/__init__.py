"""Writes: one function per thing that is done, with its rule, audit record and hint."""

from serving.services.reports import report_accept

__all__ = ["report_accept"]
