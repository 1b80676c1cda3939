"""Who may start now: slots of a pool, counted in Redis by one atomic script."""
