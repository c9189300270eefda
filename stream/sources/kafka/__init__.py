"""Kafka: topics as a log of several partitions, read by kafka-python or by confluent-kafka, and a sender.

`source.py` ties the parts together; `client.py` is what it needs of a client library, `client_*.py` are the two that
give it. Decoding of payloads lives in `stream.decoders.records`, positions are kept by `stream.store`.
"""
