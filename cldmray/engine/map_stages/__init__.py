"""Stages that map every image: read, anonymize, swap conditions, embed, reconstruct, measure."""
