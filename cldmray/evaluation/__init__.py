"""From comparison scores to results: rates with intervals, diagnostics, attribution, decisions.

Works on arrays and tables; no cluster and no image.
"""
