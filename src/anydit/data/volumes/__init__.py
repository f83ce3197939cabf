"""Volumes: NIfTI and DICOM, whole or as crops, with axes, spacing and unit kept."""
