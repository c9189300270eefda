"""Where events come from: one file a source, all behind the small contract in `base`."""
