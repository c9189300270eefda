"""Apache Kafka: one process that is broker and controller (KRaft), set up for fast starts and quick group joins.

Source of the settings: kafka.apache.org/documentation, sections "Broker Configs" and "KRaft".
"""

import base64
import os
import socket
import struct
import subprocess
import uuid
from pathlib import Path
from typing import ClassVar

from forecasting.bench.servers.base import (
    MissingServerError,
    Server,
    ServerFailedError,
    find_program,
    free_port,
    servers_folder,
)

# A single node must hold its internal topics alone. A killed broker comes back under its old id, which the controller
# refuses until the session of the dead one has run out: short sessions, short restarts.
CONFIGURATION = """\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},SASL://127.0.0.1:{sasl_port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},SASL://127.0.0.1:{sasl_port},CONTROLLER://127.0.0.1:{controller_port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \\
  user_{user}="{password}";
log.dirs={folder}/data
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
num.network.threads=2
num.io.threads=2
log.cleaner.enable=false
"""
LOGGING = """\
Configuration:
  status: error
  Appenders:
    Console:
      name: STDOUT
      PatternLayout:
        pattern: "[%d] %p %m (%c)%n"
  Loggers:
    Root:
      level: INFO
      AppenderRef:
        - ref: STDOUT
"""
API_VERSIONS = 18
SASL_USER, SASL_PASSWORD = "reader", "open-sesame"


class KafkaServer(Server):
    """One broker. Topics are not made by themselves: a test that mistypes a name is told so."""

    name: ClassVar[str] = "kafka"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._controller_port, self._sasl_port = free_port(), free_port()
        self._created: list[str] = []

    @property
    def bootstrap_servers(self) -> str:
        """The address for clients."""
        return f"127.0.0.1:{self.port}"

    @property
    def sasl_bootstrap_servers(self) -> str:
        """The address for clients that say who they are: SASL_PLAINTEXT, PLAIN, `SASL_USER` and `SASL_PASSWORD`."""
        return f"127.0.0.1:{self._sasl_port}"

    def prepare(self) -> None:
        """Write the configuration and format the data folder."""
        text = CONFIGURATION.format(
            folder=self.folder, port=self.port, controller_port=self._controller_port, sasl_port=self._sasl_port,
            user=SASL_USER, password=SASL_PASSWORD,
        )  # fmt: skip
        (self.folder / "server.properties").write_text(text)
        (self.folder / "log4j2.yaml").write_text(LOGGING)
        # It may begin with a hyphen, which an argument of its own must not.
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        tool = self._java("kafka.tools.StorageTool")
        done = subprocess.run(
            [*tool, "format", "--standalone", f"--cluster-id={cluster}", "-c", "server.properties"],
            cwd=self.folder, capture_output=True, text=True, env=self.environment(), check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise ServerFailedError(f"kafka's folder cannot be formatted:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")

    def command(self) -> list[str]:
        """Return the command."""
        return [*self._java("kafka.Kafka"), "server.properties"]

    def environment(self) -> dict[str, str]:
        """Return the environment without the variables that would change the virtual machine's options."""
        return {name: value for name, value in os.environ.items() if name not in ("JAVA_TOOL_OPTIONS", "KAFKA_OPTS")}

    def answers(self, timeout_s: float) -> bool:
        """Ask for the supported requests, which the broker answers once the controller has let it in.

        Format: kafka.apache.org/protocol, request header version 1 and ApiVersions version 0.
        """
        request = struct.pack(">hhih", API_VERSIONS, 0, 1, -1)
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout_s) as connection:
                connection.sendall(struct.pack(">i", len(request)) + request)
                answer = connection.makefile("rb").read(10)
        except OSError:
            return False
        if len(answer) < 10:
            return False
        _, correlation, error = struct.unpack(">iih", answer)
        return bool(correlation == 1 and error == 0)

    def create_topic(
        self, *, partitions: int = 1, name: str | None = None, configs: dict[str, str] | None = None
    ) -> str:
        """Make a topic, with a name of its own unless one is given, and return the name once it can be written to."""
        from kafka import KafkaAdminClient  # noqa: PLC0415 - not needed to start or stop a server
        from kafka.admin import NewTopic  # noqa: PLC0415

        topic = name or f"test-{uuid.uuid4().hex}"
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
        try:
            admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=configs)])
        finally:
            admin.close()
        self._created.append(topic)
        return topic

    def delete_topic(self, *names: str) -> None:
        """Delete topics."""
        from kafka import KafkaAdminClient  # noqa: PLC0415

        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
        try:
            admin.delete_topics(list(names))
        finally:
            admin.close()
        self._created = [topic for topic in self._created if topic not in names]

    def delete_created_topics(self) -> None:
        """Delete what `create_topic` made and `delete_topic` has not deleted yet."""
        if self._created:
            self.delete_topic(*self._created)

    def _java(self, main: str) -> list[str]:
        java = find_program("java", server=self.name)
        homes = sorted(servers_folder().glob("kafka-*/libs"))
        if not homes:
            raise MissingServerError(f"there is no kafka-*/libs in {servers_folder()}; run .ci/servers")
        options = ["-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", f"-Dlog4j2.configurationFile={self.folder}/log4j2.yaml"]
        return [str(java), *options, "-cp", f"{homes[-1]}/*", main]
