"""LiteLLM's proxy as a reference: in an environment of its own, never in the platform's."""
