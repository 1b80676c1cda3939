"""Everything dies by kill -9 while requests run; then usage is held against the engines."""
