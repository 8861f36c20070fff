"""Parts of ``benchmarks/attackers.py``."""
