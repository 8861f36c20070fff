"""Whole configurations of audits, attributions and reconstructions, checked before any work.

Settings live with what they set; this package composes them from YAML and command-line overrides.
"""
