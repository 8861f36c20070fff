"""The order of things: from faces over anonymizers and attackers to results.

:mod:`~cldmray.pipelines.audit` is the whole audit; the studies of attribution and reconstruction
build on its parts.
"""
