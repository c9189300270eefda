"""Work on many graphs shared out over a Ray cluster: the extra `ray`."""
