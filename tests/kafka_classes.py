"""How do the brokers of tests come up in half of the time?

A JVM reads and checks thousands of Kafka's classes whenever it starts. An archive of them, which a
broker writes as it ends (JEP 350), is mapped into memory instead. One that fits neither Java nor
jars is ignored, so whoever has none, or an old one, only waits longer.
"""

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from runtime import apache_kafka
from runtime.processes import free_ports
from runtime.servers import ApacheKafka
from schemas.errors import SettingInvalid, StoreUnavailable

# A broker that lives for a minute spends more than half of its processor time on compiling itself
# well: 6.1 s until it is ready, and 2.9 s with the quick compiler alone, which is enough for tests.
QUICK = "-XX:TieredStopAtLevel=1"


def options() -> str:
    """JAVA_TOOL_OPTIONS for brokers of tests."""
    java = apache_kafka.look_for_tools().java
    if java is None or not (archive := _archive_of(java)).exists():
        return QUICK
    # Other programs in Java, and another Kafka, would be told that the archive is not for them.
    return f"{QUICK} -XX:SharedArchiveFile={archive} -Xlog:disable"


def _archive_of(java: Path) -> Path:
    """Where the archive is, or would be, that this Java can read."""
    file = java.resolve()
    identity = f"{file} {file.stat().st_size} {file.stat().st_mtime_ns}"
    tag = hashlib.sha256(identity.encode()).hexdigest()[:12]
    cache = apache_kafka.jar_cache()
    return cache.with_name(f"{cache.name}-classes-{tag}.jsa")


class _Archiving(ApacheKafka):
    """Writes the archive to `into` as it ends, which takes it a few seconds."""

    stop_within_s = 120.0
    into: Path

    def _environment(self) -> Mapping[str, str]:
        return {"JAVA_TOOL_OPTIONS": f"{QUICK} -XX:ArchiveClassesAtExit={self.into}"}


def make() -> None:
    """The archive is there, where this machine can have one."""
    tools = apache_kafka.look_for_tools()
    if tools.java is None or (archive := _archive_of(tools.java)).exists():
        return
    try:
        jars = apache_kafka.provide_jars(tools, print)
        with tempfile.TemporaryDirectory(dir=archive.parent) as directory:
            broker = _Archiving(Path(directory), java=tools.java, jars=jars)
            broker.into = Path(directory) / "classes.jsa"
            broker.ports = free_ports(broker.port_count)
            broker.start()
            try:
                broker.wait_ready()
            finally:
                broker.stop()
            # One that was cut short, as on a full disk, would end every JVM that maps it.
            looked = subprocess.run(
                [tools.java, f"-XX:SharedArchiveFile={broker.into}", "-version"],
                capture_output=True,
                check=False,
                cwd=directory,
            )
            if looked.returncode == 0:
                broker.into.rename(archive)
    except (SettingInvalid, StoreUnavailable, OSError) as error:
        print(f"Brokers of tests start without an archive of their classes: {error}")


if __name__ == "__main__":
    os.environ["JAVA_TOOL_OPTIONS"] = QUICK
    make()
