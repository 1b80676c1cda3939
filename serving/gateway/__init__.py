"""The inference API: one request, from bytes in to the last byte out, metered exactly once."""
