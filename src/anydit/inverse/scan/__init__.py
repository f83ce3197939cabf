"""From a file with a measurement, or with a scan to be measured, to one with its reconstruction, for the command."""
