"""Measurements of ourselves and of peers in one interleaved run: `graphtide bench` and `benchmarks/` call them.

The modules here need nothing but torch and numpy; charts need Bokeh and are drawn only when asked for.
"""
