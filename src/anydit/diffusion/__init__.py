"""Diffusion as equations: paths, predictions, times, losses, guidance, samplers; no network and no modality."""
