"""Engines: who starts them, and what stands in for them where they are not installed."""

from __future__ import annotations

from . import environment

# Called with a cluster's id; the rooms below cannot import it.
TESSERA_RUNTIME_OF = "controlplane.wiring.runtime_of"
TESSERA_SIMULATOR = environment.flag("TESSERA_SIMULATOR")
