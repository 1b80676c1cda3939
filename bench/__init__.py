"""Speed and fault tests: what is measured, against what, and the stand-ins they need."""
