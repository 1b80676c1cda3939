"""What a pool should have, said without a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Hardware, and the engine's limits on it."""

    name: str
    concurrency: int  # requests that the engine works on at once
    adapters_per_batch: int
    adapters_in_memory: int
    largest_rank: int
    kv_cache_gib: int
    eager: bool  # no compilation: starts sooner, which is what a CPU wants


CPU = Profile(
    name="cpu",
    concurrency=16,
    adapters_per_batch=4,
    adapters_in_memory=16,
    largest_rank=64,
    kv_cache_gib=1,
    eager=True,
)

PROFILES: Mapping[str, Profile] = {profile.name: profile for profile in (CPU,)}


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterSpec:
    name: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """Engines that are alike: which engine, which model, with what, how many.

    ``adapters`` are pulled by the agents from the control plane; a runtime need not render them.
    """

    pool: str
    engine: str
    model_name: str  # the engine's own name of the base model
    model_folder: str
    model_digest: str
    context_tokens: int
    profile: Profile
    adapters: tuple[AdapterSpec, ...]
    replicas: tuple[str, ...]
