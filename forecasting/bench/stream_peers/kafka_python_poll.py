"""kafka-python alone: all records of a topic are polled, in large fetches, and nothing is done with them.

kafka_python_poll.py SERVERS TOPIC PARTITIONS EVENTS
"""

import json
import sys
import time

from kafka import KafkaConsumer, TopicPartition


def main(servers: str, topic: str, partitions: int, events: int) -> None:
    """Poll `events` records."""
    consumer = KafkaConsumer(
        bootstrap_servers=servers,
        group_id=None,
        enable_auto_commit=False,
        max_partition_fetch_bytes=16 << 20,
        fetch_max_bytes=64 << 20,
        max_poll_records=20_000,
    )
    of_topic = [TopicPartition(topic, number) for number in range(partitions)]
    consumer.assign(of_topic)
    consumer.seek_to_beginning()
    began_s = time.perf_counter()
    polled = 0
    while polled < events:
        for records in consumer.poll(timeout_ms=1000).values():
            polled += len([record.value for record in records])
    seconds = time.perf_counter() - began_s
    consumer.close()
    sys.stdout.write(json.dumps({"seconds": seconds, "events": polled}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
