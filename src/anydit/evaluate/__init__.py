"""Evaluation: how good a pipeline is, with every figure beside its floor."""

from anydit.evaluate.own import audio as audio
from anydit.evaluate.own import fields as fields
from anydit.evaluate.own import molecules as molecules
from anydit.evaluate.own import series as series
from anydit.evaluate.own import video as video
from anydit.evaluate.own import volumes as volumes
