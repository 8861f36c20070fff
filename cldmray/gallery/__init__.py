"""Galleries of reference embeddings: which of them count for a probe, and how they are searched."""
