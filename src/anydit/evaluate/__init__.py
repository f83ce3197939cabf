"""Evaluation: how good a pipeline is, with every figure beside its floor."""
