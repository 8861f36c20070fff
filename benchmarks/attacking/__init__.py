"""Parts of ``benchmarks/attack.py``."""
