"""Trained models in use: the pipeline that samples, and what makes it fast."""
