from __future__ import annotations

from django.db import models

from kernel.ids import uuid7


class BaseModel(models.Model):
    """A base model that this installation offers. ``folder`` holds its files on every engine's
    machine.

    ``modules`` maps each linear module that an adapter may change to its ``[out, in]`` shape, read
    from the model's own files.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    slug = models.SlugField(max_length=40, unique=True)
    name = models.CharField(max_length=80)
    served_name = models.CharField(
        max_length=80, unique=True, help_text="The engine's own name of it; customers never use it."
    )
    folder = models.CharField(max_length=500)
    digest = models.CharField(max_length=64)
    config = models.JSONField(default=dict)
    modules = models.JSONField(default=dict)
    context_tokens = models.PositiveIntegerField()
    default_output_tokens = models.PositiveIntegerField()
    enabled = models.BooleanField(default=True, help_text="Whether new models may be based on it.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.name
