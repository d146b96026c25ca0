"""How does a proxy come to stand between every role and every server?

Redis, ClickHouse and the collector are simply met at the proxy's address. Kafka's clients are told by
the broker where to go on, so the broker has a second listener that names the proxy.
"""

from pathlib import Path

from runtime import apache_kafka
from runtime.servers import ApacheKafka
from tests.faults.proxy import Proxy


class SideKafka(ApacheKafka):
    """A broker whose second listener, `ports[2]`, sends its clients to `told`, a proxy before it."""

    port_count = 3
    told = ""

    def _prepare(self) -> None:
        super()._prepare()
        direct, controller, side = (f"127.0.0.1:{port}" for port in self.ports)
        with (self.directory / "server.properties").open("a", encoding="utf-8") as properties:
            # Of a name that comes twice, the later line holds.
            properties.write(
                f"listeners=PLAINTEXT://{direct},CONTROLLER://{controller},SIDE://{side}\n"
                f"advertised.listeners=PLAINTEXT://{direct},SIDE://{self.told}\n"
                "listener.security.protocol.map="
                "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SIDE:PLAINTEXT\n"
            )


class Standing(Proxy):
    """A proxy as a rig has it: it stands from the beginning to the end."""

    def close(self) -> None:
        """It has ended, with everything that it forwarded."""
        self.stop()


def stand_before(upstream: str) -> Standing:
    """A started proxy before host:port."""
    host, _, port = upstream.rpartition(":")
    return Standing((host, int(port))).start()


def one_broker(directory: Path, kind: type[ApacheKafka]) -> ApacheKafka:
    """A broker of that kind, not started. Raises SettingInvalid when it cannot run here."""
    tools = apache_kafka.look_for_tools()
    apache_kafka.require(tools)
    assert tools.java is not None
    jars = apache_kafka.provide_jars(tools, print)
    return kind(directory, java=tools.java, jars=jars)
