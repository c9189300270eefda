"""Apache Kafka: the benchmarks start it too, so it stands with them."""

from forecasting.bench.servers.kafka import SASL_PASSWORD, SASL_USER, KafkaServer

__all__ = ["SASL_PASSWORD", "SASL_USER", "KafkaServer"]
