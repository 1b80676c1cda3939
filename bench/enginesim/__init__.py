"""An engine that only pretends: vLLM's HTTP, answers from a formula, set timing, faults on demand.

For benchmarks and fault tests. Its journal says what really went out, so that usage can be checked
against it.
"""
