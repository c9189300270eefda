"""One file a wire format; a decoder turns bytes into events and says what it could not read."""
