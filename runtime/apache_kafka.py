"""How does one Apache Kafka broker run here without an installation?

Its jars are on Maven Central. Maven fetches them once, by the committed runtime/kafka/pom.xml, into
a cache outside the checkout; after that only Java 17 is needed. The broker runs alone in KRaft mode
(it is its own controller). It acknowledges what is in the operating system's page cache: that
survives `kill -9` of anything, itself included, but not a power cut.
"""

import os
import re
import secrets
import shutil
import subprocess
import tempfile
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import SettingInvalid

# Not 4.3 or 4.4: they forget what commits while a partition has no leader (ADR 0008).
VERSION = "4.2.1"
METADATA_LEVEL = 29
"""The newest `metadata.version` that it reads; a newer Kafka formats with a higher one."""
OLDEST_JAVA = 17
_KAFKA = Path(__file__).with_name("kafka")
_POM = _KAFKA / "pom.xml"
_LOG_SETTINGS = _KAFKA / "log4j2.properties"
_REMEDY = (
    "install them (Debian: apt install openjdk-17-jre-headless maven), "
    'or set [kafka] embedded = "trial"'
)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Tools:
    """What this machine offers to run Apache Kafka with; None where it is missing."""

    java: Path | None
    maven: Path | None
    jars: Path | None

    @property
    def is_enough(self) -> bool:
        """True if a broker can be started, perhaps after fetching its jars."""
        return self.java is not None and (self.jars is not None or self.maven is not None)

    @property
    def missing(self) -> str:
        """What to say when it is not: the parts that are not there."""
        parts = [] if self.java else [f"no Java {OLDEST_JAVA} or newer"]
        if self.jars is None and self.maven is None:
            parts.append(f"neither Maven nor cached jars in {jar_cache()}")
        return " and ".join(parts)


def look_for_tools() -> Tools:
    """See what is here; runs `java -version`, fetches nothing."""
    maven = shutil.which("mvn")
    cache = jar_cache()
    return Tools(
        java=_find_java(),
        maven=Path(maven) if maven else None,
        jars=cache if (cache / f"kafka_2.13-{VERSION}.jar").exists() else None,
    )


def jar_cache() -> Path:
    """Where the jars are kept: beside other caches of the user, never in the checkout."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "headwater" / f"kafka-{VERSION}"


def provide_jars(tools: Tools, say: Say) -> Path:
    """The directory of the jars, fetched with Maven if they are not there yet (45 MB).

    Complete or absent: they appear under their final name at once. Raises SettingInvalid if Maven
    fails, with its last words.
    """
    if tools.jars is not None:
        return tools.jars
    if tools.maven is None:
        raise SettingInvalid(f"Apache Kafka cannot run here: {tools.missing}; {_REMEDY}")
    cache = jar_cache()
    cache.parent.mkdir(parents=True, exist_ok=True)
    say(f"Fetching Apache Kafka {VERSION} from Maven Central (45 MB, once, to {cache}) ...")
    fresh = Path(tempfile.mkdtemp(prefix=f"{cache.name}.", dir=cache.parent))
    try:
        # The pom is copied, because Maven wants to write beside it; -C insists on checksums.
        shutil.copy(_POM, fresh / "pom.xml")
        done = subprocess.run(
            [
                *(str(tools.maven), "-q", "-B", "-C", "-f", str(fresh / "pom.xml")),
                *("dependency:copy-dependencies", "-DincludeScope=runtime"),
                f"-DoutputDirectory={fresh / 'jars'}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise SettingInvalid(
                f"Maven could not fetch Apache Kafka: {_last_words(done.stdout)}; "
                'check the network, or set [kafka] embedded = "trial"'
            )
        try:
            (fresh / "jars").rename(cache)
        except OSError:
            # Somebody else was faster; theirs is as good.
            if not (cache / f"kafka_2.13-{VERSION}.jar").exists():
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return cache


def require(tools: Tools) -> None:
    """Raise SettingInvalid, saying what is missing, unless a broker can be started."""
    if not tools.is_enough:
        raise SettingInvalid(
            f'[kafka] embedded = "apache" is not possible here: {tools.missing}; {_REMEDY}'
        )


def write_properties(directory: Path, *, port: int, controller_port: int) -> Path:
    """Write the broker's configuration for this start; its log is under `directory`."""
    path = directory / "server.properties"
    path.write_text(
        f"""\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={directory / "log"}
# Topics are made by `headwater topics`, with their partitions and retention, never by a typo.
auto.create.topics.enable=false
# One broker is all there is, and few partitions start fast.
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=6000
# A stall of broker and controller together ends the session too: nobody leads for a moment, and
# all clients wait. Shorter stalls do nothing; but after a kill -9 the controller keeps the broker
# out for as long.
broker.session.timeout.ms=9000
broker.heartbeat.interval.ms=500
# A lane's transaction is at most 10 s (DESIGN); what a dead worker left open is aborted soon.
transaction.abort.timed.out.transaction.cleanup.interval.ms=2000
message.max.bytes=2097152
log.segment.bytes=134217728
log.retention.check.interval.ms=60000
log.cleaner.dedupe.buffer.size=33554432
log.cleaner.backoff.ms=15000
# Sized for a laptop: idle threads cost memory and start time.
num.network.threads=2
num.io.threads=4
background.threads=2
num.recovery.threads.per.data.dir=2
controlled.shutdown.enable=true
"""
    )
    return path


def format_once(
    java: Path, jars: Path, properties: Path, log_directory: Path, *, cluster_id: str | None = None
) -> None:
    """Give an empty log directory its cluster id; one that has it is left as it is.

    A broker alone gets a new id; those of one cluster are given theirs (`new_cluster_id`). Raises
    SettingInvalid with the tool's last words if it cannot, and if a newer Kafka did it before.
    """
    if (log_directory / "meta.properties").exists():
        _refuse_newer(log_directory)
        return
    # A start that was killed in the middle leaves no cluster id and nothing worth keeping.
    shutil.rmtree(log_directory, ignore_errors=True)
    done = subprocess.run(
        [
            *(str(java), "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
            *_classes(jars),
            *("kafka.tools.StorageTool", "format", "-t", cluster_id or new_cluster_id()),
            *("-c", str(properties)),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SettingInvalid(f"Apache Kafka could not format its log: {_last_words(done.stdout)}")


def _refuse_newer(log_directory: Path) -> None:
    """Raise SettingInvalid if a newer Kafka formatted the directory: this one would only crash."""
    level = metadata_level(log_directory)
    if level is not None and level > METADATA_LEVEL:
        raise SettingInvalid(
            f"{log_directory} was formatted by a newer Apache Kafka (metadata.version {level}); "
            f"the embedded one is {VERSION} and reads up to {METADATA_LEVEL}. Choose an empty "
            "data_dir, or go on with the Headwater that made this one"
        )


def metadata_level(log_directory: Path) -> int | None:
    """The `metadata.version` with which a log directory was formatted; None if it does not tell.

    Formatting writes it into bootstrap.checkpoint, uncompressed: the name after its length plus
    one, then the level as two bytes (Kafka's FeatureLevelRecord.json).
    """
    try:
        written = (log_directory / "bootstrap.checkpoint").read_bytes()
    except FileNotFoundError:
        return None
    found = re.search(rb"\x11metadata\.version(..)", written, re.DOTALL)
    return int.from_bytes(found.group(1), signed=True) if found else None


def broker_command(java: Path, jars: Path, properties: Path, *, heap_mb: int = 512) -> list[str]:
    """The command that is the broker; SIGTERM stops it cleanly."""
    return [
        *(str(java), "-Xms128m", f"-Xmx{heap_mb}m", "-XX:+UseSerialGC"),
        "-XX:+ExitOnOutOfMemoryError",
        *("-Djava.awt.headless=true", *_classes(jars)),
        *("kafka.Kafka", str(properties)),
    ]


def _classes(jars: Path) -> list[str]:
    return [f"-Dlog4j2.configurationFile={_LOG_SETTINGS}", "-cp", f"{jars}/*"]


def new_cluster_id() -> str:
    """An id that no other cluster has, as Kafka writes them."""
    while True:
        made = urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")
        # The tool would take a leading dash for an option.
        if not made.startswith("-"):
            return made


def _find_java() -> Path | None:
    """A Java that is new enough: JAVA_HOME's, else the one on the PATH."""
    home = os.environ.get("JAVA_HOME")
    candidates = [str(Path(home) / "bin" / "java")] if home else []
    candidates += [found] if (found := shutil.which("java")) else []
    for candidate in candidates:
        try:
            done = subprocess.run(
                [candidate, "-version"], capture_output=True, text=True, check=False, timeout=30
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        version = re.search(r'version "(\d+)', done.stderr)
        if version and int(version.group(1)) >= OLDEST_JAVA:
            return Path(candidate).absolute()
    return None


def _last_words(text: str) -> str:
    lines = [line for line in text.splitlines() if "ERROR" in line] or text.splitlines()
    return lines[0].strip()[:500] if lines else "it said nothing"
