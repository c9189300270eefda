"""Our reader of Kafka alone: all records of a topic are polled by kafka-python, taken apart by us, and dropped.

python -m forecasting.bench.kafka_poll SERVERS TOPIC PARTITIONS RECORDS
"""

import json
import sys
import time

from stream.sources.kafka.client import Partition
from stream.sources.kafka.clients import KAFKA_PYTHON, connector
from stream.sources.kafka.options import Connection
from stream.sources.kafka.plan import KafkaOptions


def main(servers: str, topic: str, partitions: int, records: int) -> None:
    """Poll `records` records, in batches as ingestion takes them."""
    client = connector(KAFKA_PYTHON, Connection(servers), group=None)()
    bounds = KafkaOptions(where=servers, topics=(topic,))
    client.start({Partition(topic, number): 0 for number in range(partitions)})
    began_s = time.perf_counter()
    polled = 0
    while polled < records:
        found = client.poll(bounds.batch_records, bounds.batch_bytes, 1.0)
        polled += sum(len(chunk.values) for chunk in found.chunks)
    seconds = time.perf_counter() - began_s
    client.close()
    sys.stdout.write(json.dumps({"seconds": seconds, "events": polled}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
