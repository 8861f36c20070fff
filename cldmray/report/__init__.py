"""A finished audit as files: results tables, figures, one HTML page, a terminal summary."""
