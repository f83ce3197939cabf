"""Audio: files of sound, and speech made on the spot."""
