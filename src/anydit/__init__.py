"""anydit: any data, one Diffusion Transformer."""
