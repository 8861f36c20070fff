"""Parts of the benchmark ``cldm_quality.py``."""
