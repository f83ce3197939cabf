"""Evaluation: how good a pipeline is, with every figure beside its floor."""

from anydit.evaluate import fields as fields
from anydit.evaluate import series as series
from anydit.evaluate import volumes as volumes
