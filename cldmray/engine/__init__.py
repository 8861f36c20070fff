"""Everything that runs on Ray: stages, their artifacts, map stages, trainings and searches.

No other package imports Ray.
"""
