"""Benchmarks of speed, quality and robustness. `README.md` beside this file lists them."""
