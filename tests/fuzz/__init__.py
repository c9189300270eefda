"""Fuzzing of the decoders: samples to start from, what must hold for any bytes, and the target for atheris."""
