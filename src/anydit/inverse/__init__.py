"""Reconstruction: samples that agree with what was measured, from a pipeline that was trained without it."""
