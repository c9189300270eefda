"""Apache Kafka: the benchmarks start it too, so it stands with them."""

from forecasting.bench.servers.kafka import KafkaServer

__all__ = ["KafkaServer"]
