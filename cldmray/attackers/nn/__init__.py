"""Neural networks of the trained attackers: encoders, backbones, losses, pairs and one step.

Nothing here knows Ray: :mod:`cldmray.engine` distributes what these modules compute.
"""
