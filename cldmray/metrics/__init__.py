"""The measures of an audit (docs/measures.md): pure NumPy functions, no model, no cluster."""
