"""The engine agent: keeps an engine's adapters as ordered, proves them, reports what is true."""
