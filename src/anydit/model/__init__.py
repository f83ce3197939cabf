"""The network: patch tokens with coordinates, a mask and conditions in; one value (or two) per channel out."""
