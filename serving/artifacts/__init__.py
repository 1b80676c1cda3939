"""From bytes that a tenant sends to files that an engine may load."""
