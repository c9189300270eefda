"""One file a format of broker records; `formats.record_decoder` makes the decoder of a format by its name.

A record is one message as a broker, SSE or WebSocket delivers it. Where records come from is `stream.sources`' affair;
files are read by the decoders one folder up.
"""
