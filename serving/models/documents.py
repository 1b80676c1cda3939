from __future__ import annotations

from django.db import models


class DocumentSequence(models.Model):
    """The last sequence given to a document. Lives here so that an emptied Redis cannot take
    readers back.
    """

    kind = models.CharField(max_length=16)
    scope = models.CharField(max_length=40)
    sequence = models.PositiveBigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["kind", "scope"], name="sequence_unique_per_document"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.scope} {self.sequence}"
