"""Molecules: sets of atoms in XYZ, SDF and ASE's files, and what bonds their distances make."""
