"""The engine's own virtual environment and the demo's base model, both in the per-user cache."""
