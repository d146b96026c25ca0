"""Does Redis hold the newest profile of everybody, and nothing of who was erased? And does it say
of no lane that it stands where profiles are missing?"""

from typing import Any

from runtime.settings import Settings
from schemas.codec import SUBJECT
from schemas.subjects import CURSOR_KEY, Subject, applied_key
from schemas.topics import Topics
from sinks.group_sink import GroupSink
from sinks.subjects_to_redis import SubjectsToRedis
from tests.model.memory_redis import MemoryClient, MemoryRedis
from tests.model.sink_world import SinkWorld, never_stopped

PEOPLE = 6
PREFIX = "m:"


class ProfileWorld(SinkWorld):
    """One schedule of subjects_to_redis."""

    topic = Topics().subjects
    server: MemoryRedis

    def __init__(self, seed: int) -> None:
        super().__init__(seed, MemoryRedis)
        # pid -> (partition, offset, value or None when erased) of its newest record
        self.newest: dict[bytes, tuple[int, int, bytes | None]] = {}
        self._records: list[tuple[int, int, bytes, bytes | None]] = []
        self._number = 0
        self._stood: list[tuple[int, int, bytes]] = []  # where lanes said that they stand

    def make_client(self, _url: str, **options: Any) -> MemoryClient:
        """Stands for redis.Redis.from_url."""
        return MemoryClient(self.server, **options)

    def arrive(self) -> None:
        chance = self.chance
        p = chance.randrange(self.partitions)
        how = "commit" if chance.random() > 0.15 else "abort"
        records: list[tuple[bytes | None, bytes | None]] = []
        erased: list[bool] = []
        for _ in range(chance.choice((1, 1, 2, 4))):
            pid = bytes([chance.randrange(PEOPLE) * self.partitions + p]) * 16
            kind = chance.choice(("profile",) * 6 + ("stub", "tombstone", "cursor"))
            self._number += 1
            erased.append(kind in ("stub", "tombstone"))
            if kind == "cursor":
                records.append((CURSOR_KEY, b"%d:%d" % (self.generation, self._number)))
            elif kind == "tombstone":
                records.append((pid, None))
            else:
                records.append((pid, SUBJECT.encode(_subject(pid, self._number, erased[-1]))))
        offsets = self.write(p, records, how)
        if how == "abort":
            return
        for offset, (key, value), is_erased in zip(offsets, records, erased, strict=True):
            if key == CURSOR_KEY and value is not None:
                self._stood.append((p, offset, value))
            elif key is not None:
                self._records.append((p, offset, key, None if is_erased else value))
        self._find_newest()

    def _find_newest(self) -> None:
        self.newest = {pid: (p, at, value) for p, at, pid, value in self._records}

    def make_sink(self, settings: Settings) -> GroupSink:
        return SubjectsToRedis(settings, never_stopped())

    def positions(self) -> dict[int, int]:
        found = {}
        for p in range(self.partitions):
            cursor = self.server.strings.get(f"{PREFIX}cursor:{self.topic}:{p}", b"0:0")
            generation, _, position = cursor.decode().partition(":")
            # One that bears a mark stands before a batch that is not finished.
            if generation == str(self.generation) and position.isdigit():
                found[p] = int(position)
        return found

    def cut(self) -> None:
        p = self.chance.randrange(self.partitions)
        log = self.kafka.logs[self.topic, p]
        end = self.chance.randint(0, len(log.entries))
        log.cut(end)
        self._records = [each for each in self._records if each[0] != p or each[1] < end]
        self._stood = [each for each in self._stood if each[0] != p or each[1] < end]
        self._find_newest()

    def look(self) -> set[str]:
        if self.said["cut"]:
            return set()  # what a log that went back said is known to nobody
        found = set()
        for p, offset, value in self._stood_by_redis():
            if not value.startswith(b"%d:" % self.generation):
                continue  # whoever asks now believes no lane of before
            told = {pid: at for of, at, pid, _ in self._records if of == p and at < offset}
            for pid, at in told.items():
                held = self.server.hashes.get(PREFIX + pid.hex())
                if held is None or (int(held["g"]), int(held["v"])) < (self.generation, at):
                    found.add("a lane stood where a profile is missing")
        return found

    def _stood_by_redis(self) -> list[tuple[int, int, bytes]]:
        strings = self.server.strings
        return [
            each
            for each in self._stood
            if strings.get(applied_key(PREFIX, self.topic, each[0])) == each[2]
        ]

    def broken_promises(self) -> set[str]:
        found = set()
        for pid, (_, offset, value) in self.newest.items():
            held = self.server.hashes.get(PREFIX + pid.hex())
            if held is None:
                found.add("profile is missing")
            elif value is None:
                if set(held) != {"g", "v", "d"}:
                    found.add("erased person came back")
            elif held.get("p") != value:
                found.add("profile is not the newest")
            elif int(held["v"]) != offset:
                found.add("version is not the record's")
        newest = {p: (p, at, value) for p, at, value in self._stood}
        if not self.said["cut"] and sorted(self._stood_by_redis()) != sorted(newest.values()):
            found.add("where a lane stands is not told")
        known = {PREFIX + pid.hex() for pid in self.newest}
        if not self.said["cut"] and self.server.hashes.keys() - known:
            found.add("profile of nobody")
        return found


def _subject(pid: bytes, orders: int, is_erased: bool) -> Subject:
    return Subject(
        pid, 5 if is_erased else None, 1, 2, orders, orders, 0, [], [], [], [], [], b"", [], b""
    )
