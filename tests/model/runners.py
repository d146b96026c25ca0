"""How does one seed of a model run?

Each runner patches the product's outer edges (clients of servers, clocks, the end of a process) for
as long as `patch` lives, and answers a function from a seed to the promises that it broke and the
world that it was.
"""

import random
from collections.abc import Callable

import pytest
import redis

from consumers.profiles import profile_freshness
from runtime import sealing
from runtime.settings import Settings
from sinks import subjects_to_redis
from streams import lane as lane_module
from tests.mailing import Mailbox
from tests.model import shop_recount
from tests.model.cart_story import DAY_MS, SLOT_MS, Story, story_of
from tests.model.counter_world import CounterWorld
from tests.model.lane_world import LaneWorld
from tests.model.memory_clients import memory_clients
from tests.model.memory_kafka import MemoryKafka
from tests.model.mortal_store import Fate
from tests.model.profile_world import ProfileWorld
from tests.model.recount import broken_promises
from tests.model.shop_post import Post
from tests.model.shop_world import PARTITIONS, Automation, ShopWorld
from tests.model.sink_world import memory_sinks
from tests.model.virtual_loop import VirtualLoop
from tests.stream_log import START_MS


def lanes(
    patch: pytest.MonkeyPatch, kafka_of: Callable[[int], MemoryKafka] = MemoryKafka
) -> Callable[[int], tuple[set[str], LaneWorld]]:
    """Lanes; `kafka_of` makes the log for so many partitions."""
    world: list[LaneWorld] = []
    patch.setattr(lane_module, "crash", lambda why, **where: world[0].crash(why, **where))
    patch.setattr(lane_module, "RECORDS_A_SLICE", 3)
    use = memory_clients(patch)
    loop = VirtualLoop()
    loop.set_exception_handler(lambda _loop, _context: None)  # coroutines of dead processes

    def run(seed: int) -> tuple[set[str], LaneWorld]:
        kafka = kafka_of(1 + seed % 2)
        use(kafka)
        world[:] = [LaneWorld(seed, loop, kafka)]
        wrong = loop.run_until_complete(world[0].run())
        of = world[0]
        return wrong | broken_promises(kafka, of.arrivals, of.basis, of.late_grant_ms), of

    return run


def counters(patch: pytest.MonkeyPatch) -> Callable[[int], tuple[set[str], CounterWorld]]:
    """accepted_to_clickhouse."""
    use = memory_sinks(patch)

    def run(seed: int) -> tuple[set[str], CounterWorld]:
        world = CounterWorld(seed)
        use(world)
        return world.run(), world

    return run


def profiles(patch: pytest.MonkeyPatch) -> Callable[[int], tuple[set[str], ProfileWorld]]:
    """subjects_to_redis."""
    use = memory_sinks(patch)

    def run(seed: int) -> tuple[set[str], ProfileWorld]:
        world = ProfileWorld(seed)
        use(world)
        patch.setattr(redis.Redis, "from_url", world.make_client)
        return world.run(), world

    return run


def shop(patch: pytest.MonkeyPatch) -> Callable[..., ShopWorld]:
    """A shop of given stories until a given time; on a Kafka of its own, or one that is given with
    whoever sends."""
    world: list[ShopWorld] = []
    patch.setattr(lane_module, "crash", lambda why, **where: world[0].crash(why, **where))
    use = memory_clients(patch)

    def run(
        seed: int,
        stories: list[Story],
        until_ms: int,
        kafka: MemoryKafka | None = None,
        automation: Automation | None = None,
    ) -> ShopWorld:
        kafka, loop = kafka or MemoryKafka(PARTITIONS), VirtualLoop()
        loop.set_exception_handler(lambda _loop, _context: None)  # coroutines of dead lanes
        use(kafka)
        world[:] = [ShopWorld(seed, loop, kafka, automation=automation)]
        loop.run_until_complete(world[0].run(stories, until_ms))
        return world[0]

    return run


def journeys(
    patch: pytest.MonkeyPatch, people: int = 40, days: int = 30
) -> Callable[[int], tuple[set[str], ShopWorld]]:
    """Messages about carts left behind: a shop of so many people and days."""
    run_shop = shop(patch)
    first_ms = START_MS // SLOT_MS * SLOT_MS
    until_ms = first_ms + (days + 12) * DAY_MS

    def run(seed: int) -> tuple[set[str], ShopWorld]:
        chance = random.Random(seed)
        stories = [story_of(chance, chance.randbytes(16), first_ms, days) for _ in range(people)]
        of = run_shop(seed, stories, until_ms)
        return shop_recount.broken_promises(of.due(), stories, until_ms, of.met), of

    return run


class _Seeded:
    """Stands for `os` where keys and pids are made."""

    def __init__(self, chance: random.Random) -> None:
        self.urandom = chance.randbytes


def journeys_sent(
    patch: pytest.MonkeyPatch,
    settings_of: Callable[[str], Settings],
    mailbox: Mailbox,
    people: int,
    days: int = 30,
    deaths: float = 0.01,
) -> Callable[[int], tuple[set[str], ShopWorld]]:
    """The same with automation on real servers: `settings_of` gives those of a name that nobody had,
    `mailbox` is behind their mail server; its processes die at each step with a chance of `deaths`.
    """
    run_shop = shop(patch)
    first_ms = START_MS // SLOT_MS * SLOT_MS
    until_ms = first_ms + (days + 12) * DAY_MS
    use = memory_clients(patch)
    patch.setattr(profile_freshness, "CATCHES_UP_WITHIN_S", 0)
    patch.setattr(subjects_to_redis, "DURABLE_EVERY_S", 60.0)

    def run(seed: int) -> tuple[set[str], ShopWorld]:
        chance, kafka = random.Random(seed), MemoryKafka(PARTITIONS)
        use(kafka)
        patch.setattr(sealing, "os", _Seeded(chance))
        patch.setattr(
            profile_freshness,
            "ends_of_all",
            lambda _servers, topics, partitions, **_: {
                (topic, p): len(kafka.logs[topic, p].entries)
                for topic in topics
                for p in range(partitions)
            },
        )
        post = Post(settings_of(f"shop{seed}"), kafka, mailbox, Fate(random.Random(seed), deaths))
        try:
            pids = [each.pid for each in post.people(people)]
            stories = [story_of(chance, pid, first_ms, days) for pid in pids]
            of = run_shop(seed, stories, until_ms, kafka, post)
            due = of.due()
            return shop_recount.broken_promises(due, stories, until_ms, of.met, post), of
        finally:
            post.close()

    return run
