"""Load for benchmarks and fault tests: only on this machine, bounded in every direction."""
