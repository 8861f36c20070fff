"""Diffusion models as anonymizers: Stable Diffusion, SDXL or the embedded CLDM, with ControlNets.

``settings`` says what a user may set, ``loading`` turns it into a pipeline of diffusers, and
``inference`` runs that pipeline batch by batch; the other modules are their parts.
"""
