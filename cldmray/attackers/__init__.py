"""Attackers: what each one knows, what it learns from, and how it embeds or scores images.

:mod:`~cldmray.attackers.base` defines what an attacker is asked; each kind has one module. The
networks lie in :mod:`~cldmray.attackers.nn`, the reconstruction attack in
:mod:`~cldmray.attackers.reconstruction`.
"""
