"""Backends of the selective scan; `reference` is plain torch and defines what is right."""
