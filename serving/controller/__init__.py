"""From rows to running engines: desired, observed, plan, apply, status."""
