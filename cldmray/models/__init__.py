"""Training of the embedded models: the conditional latent diffusion model and the depth network."""
