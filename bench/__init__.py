"""Speed and memory of pointsman, measured beside floors in the same run; see docs/benchmarks.md."""
