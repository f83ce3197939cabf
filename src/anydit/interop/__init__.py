"""Weights and configs in the formats of published projects, to anydit's and back; one module for each family."""
