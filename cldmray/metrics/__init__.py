"""The measures of an audit (DESIGN section 5): pure NumPy functions, no model, no cluster."""
