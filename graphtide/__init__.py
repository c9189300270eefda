"""The public face of Graphtide. Imports none of the four packages."""
