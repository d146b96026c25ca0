"""Would anybody notice if a safeguard were gone?

Each mutant is this tree with one safeguard taken out of a copy of it, by its text: one that is not
found exactly once is an error, so that the mutants stay as true as the code. What should notice (a
model, or a contract with the real server) runs in a process of its own on the copy, and must say
which promise was broken; on the copy as it is, the same command must find nothing.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.warm import Warm

PARTS = ("headwater", "schemas", "producers", "streams", "sinks", "consumers", "runtime", "tests")
WITHIN_S = 240
MOST_OTHER_ENDS = 40


@dataclass(frozen=True, slots=True)
class Mutant:
    """What is taken out, and who must notice: `seeds` of `model` end with one of `broken`."""

    name: str
    file: str
    old: str
    new: str
    model: str
    broken: tuple[str, ...]
    seeds: tuple[int, int] = (0, 800)


TWICE = ("accepted twice", "seq has a gap or a repeat", "transaction in pieces")
LOST = ("lost", "facts differ from the log", "counters differ from the log")

MUTANTS = [
    # -- lanes
    Mutant(
        "transactional id not tied to the lane",
        "streams/lane.py",
        "{self.settings.generation}.{self.p}",
        "{self.settings.generation}.{id(self)}",
        "lanes",
        TWICE,
    ),
    Mutant(
        "init_transactions after the rebuild",
        "streams/lane.py",
        "        self.producer = self._fenced(name)\n",
        "        self._rebuild(); self.producer = self._fenced(name); return\n",
        "lanes",
        TWICE,
    ),
    Mutant(
        "rebuild reads uncommitted",
        "runtime/transactions.py",
        '"isolation.level": "read_committed"',
        '"isolation.level": "read_uncommitted"',
        "lanes",
        ("lost", "seq has a gap or a repeat"),
    ),
    Mutant(
        "applying while the barrier commits",
        "streams/lane.py",
        "        await self._barrier_if_due(loop.time())\n        return not",
        "        asyncio.ensure_future(self._barrier_if_due(loop.time()))\n        return not",
        "lanes",
        (*TWICE, *LOST, "withheld count is wrong"),
    ),
    Mutant(
        "a disconnect in a commit is ignored",
        "runtime/transactions.py",
        "error.fatal() or self._is_committing",
        "error.fatal()",
        "lanes",
        TWICE,
        (0, 2000),
    ),
    Mutant(
        "a commit longer than the socket's timeout is trusted",
        "runtime/transactions.py",
        "took_s > SOCKET_TIMEOUT_S",
        "took_s > 1e9",
        "lanes",
        TWICE,
        (0, 2000),
    ),
    Mutant(
        "a commit without an answer is trusted",
        "runtime/transactions.py",
        'self._on_fault(f"commit failed: {fault_name(error)}")',
        "self._is_committing = False",
        "lanes",
        TWICE + LOST,
        # Before it the next record is refused by a producer in the wrong state: noticed, but safe.
        seeds=(49, 800),
    ),
    Mutant(
        "a record that was not delivered is ignored",
        "runtime/transactions.py",
        'self._on_fault(f"a record was not delivered: {error.name()}")',
        "pass",
        "lanes",
        TWICE + LOST,
    ),
    Mutant(
        "event ids are forgotten by a rebuild",
        "streams/rules/rebuild.py",
        "memory.restore(seq, SIGHTINGS.decode(value))",
        "pass",
        "lanes",
        ("accepted twice",),
    ),
    Mutant(
        "event ids are not written down",
        "streams/written_memory.py",
        "if sightings is not None:",
        "if False:",
        "lanes",
        ("accepted twice",),
    ),
    Mutant(
        "event ids live for ever",
        "streams/rules/deduplicate.py",
        "<= self.window_ms",
        "<= 1 << 60",
        "lanes",
        ("lost", "not set aside once", "withheld count is wrong"),
    ),
    Mutant(
        "the position is not that of the cursor",
        "streams/rules/rebuild.py",
        "if cursor.generation == generation:",
        "if False:",
        "lanes",
        ("not set aside once", "withheld count is wrong", "stuck", "accepted twice"),
    ),
    Mutant(
        "a cursor outside its log is taken",
        "streams/lane.py",
        "if not first_offset <= offset <= end_offset:",
        "if False:",
        "lanes",
        ("stuck", "lost"),
        (200, 3000),
    ),
    Mutant(
        "an erased person is taken in again",
        "streams/rules/admit.py",
        "if person.erased_at_ms is not None:",
        "if False:",
        "lanes",
        ("erased person came back",),
    ),
    Mutant(
        "events are applied before what is known of decisions",
        "streams/lane.py",
        "                if batch.topic == self.settings.topics.collected:\n",
        "                if False:\n",
        "lanes",
        ("used what is not allowed", "lost"),
    ),
    Mutant(
        "a late withdrawal takes nothing back",
        "streams/consents_to_subjects.py",
        "        if may_take_back(",
        "        if False and may_take_back(",
        "lanes",
        ("used what is not allowed",),
    ),
    Mutant(
        "the gate asks for the newest decision, not for stamps",
        "streams/rules/gate.py",
        "    times = (event.occurred_at_ms, event.received_at_ms, gate.late_grant_ms)\n",
        "    times = (event.received_at_ms, event.received_at_ms, gate.late_grant_ms)\n",
        "lanes",
        ("used what is not allowed", "lost"),
    ),
    Mutant(
        "an event is released after the limit",
        "streams/rules/gate.py",
        "event.received_at_ms, gate.late_grant_ms)",
        "event.received_at_ms, 20 * gate.late_grant_ms)",
        "lanes",
        ("used what is not allowed",),
    ),
    Mutant(
        "a late touch moves nothing",
        "streams/collected_to_accepted.py",
        "            if outcome.moved is not None:\n",
        "            if False:\n",
        "lanes",
        ("campaigns differ",),
    ),
    Mutant(
        "what touched another pid decides nothing",
        "streams/moves_to_subjects.py",
        "    if moved is not None:\n",
        "    if False:\n",
        "lanes",
        ("campaigns differ",),
    ),
    Mutant(
        "nobody is told what touched others",
        "streams/subjects_to_moves.py",
        "    touches = touches_for(person, pids, lane.settings.rules.attribution_ms)\n",
        "    touches = touches_for(person, (), lane.settings.rules.attribution_ms)\n",
        "lanes",
        ("does not know what touched others of the person", "campaigns differ"),
    ),
    Mutant(
        "a touch that is taken back goes on deciding",
        "streams/outputs.py",
        "        if moved is not None:\n",
        "        if False:\n",
        "lanes",
        ("campaigns differ",),
    ),
    Mutant(
        "touches are not read back",
        "streams/rules/person.py",
        "    if subject.touches:\n",
        "    if False:\n",
        "lanes",
        ("campaigns differ",),
    ),
    Mutant(
        "what is released stays parked",
        "streams/parked_to_accepted.py",
        "        lane.parking.take(pid, pointer)\n",
        "",
        "lanes",
        ("accepted twice", "parked although accepted"),
    ),
    Mutant(
        "what is parked is not written down",
        "streams/written_memory.py",
        "in lane.parking.take_changed():",
        "in ():",
        "lanes",
        ("lost",),
    ),
    Mutant(
        "nobody looks at what the last owner had parked",
        "streams/rules/parking.py",
        "        self._by_pid[pid] = pointers\n",
        "",
        "lanes",
        ("lost", "erased person came back"),
    ),
    Mutant(
        "what is known of a member is added up",
        "streams/rules/kinship.py",
        "in self.members.items() if each.through != through}",
        "in self.members.items()}",
        "lanes",
        ("members are others", "a member is not as its lane knows it"),
    ),
    Mutant(
        "whom a pid belonged to is not told that it left",
        "streams/moves_to_subjects.py",
        "            kinship.left.add(kinship.moved_to)\n",
        "            pass\n",
        "lanes",
        ("members are others",),
    ),
    Mutant(
        "the last claim to arrive counts",
        "schemas/identity.py",
        "    return min(allowed, key=lambda each: (-each.rank, *_stamp(each)), default=None)\n",
        "    return allowed[-1] if allowed else None\n",
        "lanes",
        ("belongs to somebody else",),
    ),
    Mutant(
        "a lane tells of a member without its newest events",
        "streams/settle.py",
        "    tell_others(lane, person)\n",
        "    tell_others(lane, person) if lane.index % 2 else None\n",
        "lanes",
        (
            "members are others",
            "a member is not as its lane knows it",
            "belongs to an erased person",
        ),
    ),
    Mutant(
        "who else is the person is forgotten by a rebuild",
        "streams/rules/person.py",
        "    person.kinship = read_kinship(",
        "    read_kinship(",
        "lanes",
        ("belongs to somebody else", "members are others"),
    ),
    Mutant(
        "a stub takes what is told of members in silence",
        "streams/moves_to_subjects.py",
        "        ask_to_erase(lane, moved.pid, person.erased_at_ms, pids)\n",
        "        pass\n",
        "lanes",
        ("belongs to an erased person",),
    ),
    Mutant(
        "members of an erased person stay",
        "streams/subjects_to_moves.py",
        "    ask_to_erase(lane, person.pid, request.requested_at_ms, pids, reason)\n",
        "",
        "lanes",
        ("belongs to an erased person",),
        (800, 4000),
    ),
    Mutant(
        "what others of a person decided takes nothing back",
        "streams/moves_to_subjects.py",
        "        if any(may_take_back(",
        "        if False and any(may_take_back(",
        "lanes",
        ("used what is not allowed",),
    ),
    Mutant(
        "the gate asks only for what was decided under the pid",
        "streams/rules/gate.py",
        "[person.consents, *kinship.decisions]",
        "[person.consents]",
        "lanes",
        ("used what is not allowed",),
    ),
    Mutant(
        "who counts people does not hear that a pid left",
        "streams/subjects_to_moves.py",
        "in sorted(before ^ after):",
        "in sorted(after - before):",
        "lanes",
        ("who counts people is told otherwise",),
    ),
    Mutant(
        "what is kept of a person's record outlives a decision",
        "streams/consents_to_subjects.py",
        "person.settled = person.decided = None",
        "person.decided = None",
        "lanes",
        ("a person is written otherwise",),
    ),
    Mutant(
        "what is kept of a person's record outlives a merge",
        "streams/moves_to_subjects.py",
        "person.rare = person.decided = None",
        "person.decided = None",
        "lanes",
        ("a person is written otherwise",),
    ),
    # -- counters
    Mutant(
        "what belongs to another campaign stays",
        "sinks/rules/counters.py",
        "            _reattribute(prefix, done, event, offset, live[event.pid])\n",
        "",
        "counters",
        LOST,
    ),
    Mutant(
        "what moves counts in both campaigns",
        "sinks/rules/counters.py",
        "            done.added.setdefault(at_record, []).append((offset, -addition))\n",
        "            pass\n",
        "counters",
        LOST,
    ),
    Mutant(
        "what moved is moved again from where it was",
        "sinks/rules/reattribute.py",
        "        if is_event(each.fact) and each.retracted_at is None:\n",
        "        if is_event(each.fact):\n",
        "counters",
        (*LOST, "counters differ from facts"),
    ),
    Mutant(
        "events of the same batch do not move",
        "sinks/rules/counters.py",
        "        if live and event.pid in live:\n",
        "        if False:\n",
        "counters",
        LOST,
    ),
    Mutant(
        "the end of a span is within it",
        "sinks/rules/reattribute.py",
        "span.from_ms <= fact[8] < span.until_ms",
        "span.from_ms <= fact[8] <= span.until_ms",
        "counters",
        LOST,
    ),
    Mutant(
        "who was moved counts as retracted",
        "tests/model/memory_clickhouse.py",
        " and (key[3], key[4], generation, offset) not in moved",
        "",
        "counters",
        LOST,
    ),
    Mutant(
        "counters without the version",
        "sinks/rules/counters.py",
        "elif known.last_offset < added[0][0]:",
        "elif True:",
        "counters",
        LOST,
    ),
    Mutant(
        "counters forget what the store has",
        "sinks/rules/counters.py",
        "if known is None:\n            value",
        "if True:\n            value",
        "counters",
        LOST,
    ),
    Mutant(
        "a counter that stands after the progress is not said again",
        "sinks/rules/counters.py",
        "value, last_offset = known.value, known.last_offset",
        "continue",
        "counters",
        LOST,
        (650, 5000),
    ),
    Mutant(
        "progress before counters",
        "sinks/accepted_to_clickhouse.py",
        "            self._store.insert_facts(facts)\n            self._store.insert_marks(marks)\n",
        "            self._store.insert_progress(progress, at_ms)\n"
        "            self._store.insert_facts(facts)\n            self._store.insert_marks(marks)\n",
        "counters",
        LOST,
    ),
    Mutant(
        "what a torn retraction marked is taken for done",
        "sinks/rules/counters.py",
        "is_retracted = at is not None and _is_before(prefix, *at)",
        "is_retracted = at is not None",
        "counters",
        LOST,
        (0, 3000),
    ),
    Mutant(
        "a retraction sees facts that are not counted yet",
        "sinks/rules/counters.py",
        "        if not _is_before(prefix, known.fact[2], known.fact[4]):\n",
        "        if False:\n",
        "counters",
        LOST,
        (0, 3000),
    ),
    Mutant(
        "an erasure that a lane repeats is carried out",
        "sinks/rules/take_back.py",
        "            done.repeats.append(Repeat(offset, erased.lane, found, highest))\n"
        "            continue\n",
        "            done.repeats.append(Repeat(offset, erased.lane, found, highest))\n",
        "counters",
        ("others erased than asked to be",),
        (0, 3000),
    ),
    Mutant(
        "what stands in is made anew of what is left",
        "sinks/rules/take_back.py",
        "        if erased.pid not in already:\n",
        "        if True:\n",
        "counters",
        ("counters differ from facts", "stand-ins for other records"),
        (0, 3000),
    ),
    Mutant(
        "visits of a person with retracted events are the lane's",
        "sinks/rules/counters.py",
        "if marked and (person := marked.get(event.pid)) is not None:",
        "if False:",
        "counters",
        LOST,
    ),
    Mutant(
        "sinks read uncommitted",
        "runtime/kafka_reader.py",
        '"isolation.level": "read_committed"',
        '"isolation.level": "read_uncommitted"',
        "counters",
        LOST,
    ),
    Mutant(
        "a sink begins at its group's offsets",
        "runtime/kafka_reader.py",
        "        for partition, position in positions.items():\n            first, end",
        "        for partition, position in positions.items():\n"
        "            position = self._consumer.committed([TopicPartition(self._topic, partition)])[0].offset\n"
        "            position = None if position < 0 else position\n"
        "            first, end",
        "counters",
        (*LOST, "records counted otherwise", "tripwire rang without a reason"),
    ),
    Mutant(
        "progress without the tripwire's map",
        "sinks/rules/counters.py",
        "prefix.records, dict(prefix.highest))",
        "prefix.records, {})",
        "counters",
        (*LOST, "others erased than asked to be", "stand-ins for other records"),
    ),
    Mutant(
        "no tripwire",
        "sinks/rules/counters.py",
        "if before is not None and found <= before:",
        "if False:",
        "counters",
        ("tripwire silent",),
    ),
    Mutant(
        "progress over whatever the store has",
        "sinks/accepted_to_clickhouse.py",
        "        lost = self._lost(positions)\n",
        "        lost: list[int] = []\n",
        "counters",
        LOST,
    ),
    Mutant(
        "only the insert that failed is repeated",
        "sinks/accepted_to_clickhouse.py",
        "            self._store.insert_facts(facts)\n            self._store.insert_marks(marks)\n",
        '            self._retry(lambda: self._store.insert_facts(facts), "f")\n'
        '            self._retry(lambda: self._store.insert_marks(marks), "m")\n',
        "counters",
        (*LOST, "counters differ from facts"),
        (650, 3000),
    ),
    Mutant(
        "a sum is looked up in a store that went back",
        "sinks/accepted_to_clickhouse.py",
        "        if self._has_looked:\n",
        "        if False:\n",
        "counters",
        (*LOST, "counters differ from facts"),
        (0, 1000),
    ),
    Mutant(
        "who joins a person is not written down",
        "sinks/rules/counters.py",
        "            done.links.append(link_row(event, kp, offset))\n",
        "",
        "counters",
        ("people counted otherwise",),
    ),
    Mutant(
        "progress before links",
        "sinks/accepted_to_clickhouse.py",
        "            self._store.insert_links(links)\n",
        "            self._store.insert_progress(progress, at_ms)\n"
        "            self._store.insert_links(links)\n",
        "counters",
        ("people counted otherwise", *LOST),
    ),
    Mutant(
        "the oldest word on two pids is in force",
        "sinks/rules/links.py",
        "link.place >= known.place",
        "link.place <= known.place",
        "counters",
        ("people counted otherwise",),
    ),
    # -- profiles
    Mutant(
        "cursors before profiles",
        "sinks/subjects_to_redis.py",
        "self._store.write(writes, moves) or self._store.move_cursors(moves, applied)",
        "self._store.move_cursors(moves, applied) or self._store.write(writes, moves)",
        "profiles",
        ("profile is missing", "profile is not the newest", "erased person came back", "stuck"),
    ),
    Mutant(
        "only the call that failed is repeated",
        "sinks/subjects_to_redis.py",
        "self._store.write(writes, moves) or self._store.move_cursors(moves, applied)",
        '(self._retry(lambda: self._store.write(writes), "w"), '
        'self._retry(lambda: self._store.move_cursors(moves, applied), "m"))[1]',
        "profiles",
        ("profile is missing", "profile is not the newest", "erased person came back"),
        (0, 400),
    ),
    Mutant(
        "nobody tells where a lane stands",
        "sinks/subjects_to_redis.py",
        "move_cursors(moves, applied)",
        "move_cursors(moves)",
        "profiles",
        ("where a lane stands is not told",),
    ),
    Mutant(
        "where a lane stood is told before what is read again",
        "sinks/subjects_to_redis.py",
        "self._held, self._applied = {}, {}",
        "self._held = {}",
        "profiles",
        ("a lane stood where a profile is missing",),
        (0, 400),
    ),
    Mutant(
        "nobody looks whether the cursor is still there",
        "sinks/profile_store.py",
        "if value != self._known.get(p)]",
        "if False]",
        "profiles",
        ("stuck",),
    ),
    Mutant(
        "a batch of profiles does not mark the cursor",
        "sinks/profile_store.py",
        "lost = self._set_cursors(pipeline, marked)",
        "lost = self._set_cursors(pipeline, {})",
        "profiles",
        ("profile is missing", "profile is not the newest", "erased person came back"),
        (0, 400),
    ),
    Mutant(
        "the stub of an erased person is a profile",
        "sinks/subjects_to_redis.py",
        "if subject.erased_at_ms is not None:",
        "if False:",
        "profiles",
        ("erased person came back",),
    ),
    Mutant(
        "profiles of an aborted transaction",
        "runtime/kafka_reader.py",
        '"isolation.level": "read_committed"',
        '"isolation.level": "read_uncommitted"',
        "profiles",
        ("profile is not the newest", "erased person came back", "profile of nobody"),
    ),
    # -- messages about carts left behind
    Mutant(
        "what is not read yet is taken for silence",
        "streams/subjects_to_journeys.py",
        "lane.known.until_ms.get(person.pid, -1)",
        "now_ms",
        "journeys",
        ("a message after an order", "messages differ"),
        (0, 60),
    ),
    Mutant(
        "how far a journey is is not written down",
        "streams/rules/written_person.py",
        "return _NO_KIN_NOR_TRAITS + _write_cart(person)",
        'return _NO_KIN_NOR_TRAITS + SUBJECT.part_writer("cart", "cart")(person) + _EMPTY',
        "journeys",
        ("a message was due twice", "messages differ"),
        (0, 60),
    ),
    Mutant(
        "who waits is forgotten by a rebuild",
        "streams/lane.py",
        "self.wakes = Wakes(self.people.values())",
        "self.wakes = Wakes()",
        "journeys",
        ("messages differ",),
        (0, 60),
    ),
    Mutant(
        "a refusal hides nothing",
        "streams/subjects_to_journeys.py",
        "unseen_until_ms(groups_of(whole), gate, now_ms)",
        "-1",
        "journeys",
        ("messages differ",),
        (0, 60),
    ),
]


SENDING = [
    Mutant(
        "what was ordered while a message waited is not asked for",
        # Either of the two finds most orders.
        "consumers/messages/gate.py",
        "            decide_by_purchase(anchor_ms, _ordered_at_ms(each for _, each in known)),\n"
        "            decide_by_cart(anchor_ms, contents_of(due.lines), *_put_there_since(cart)),\n",
        "",
        "journeys_sent",
        ("mailed: a message after an order",),
    ),
    Mutant(
        "days begin by UTC",
        "consumers/rules/sending.py",
        "Window(day_began_ms(now_ms, zone.rules), ",
        "Window(now_ms // 86_400_000 * 86_400_000, ",
        "journeys_sent",
        ("mails differ",),
        (1, 40),
    ),
    Mutant(
        "whoever claimed a message once may begin",
        "consumers/messages/scripts.py",
        "if held[1] ~= 'claimed' or held[2] ~= ARGV[3] then return {'lost'} end",
        "if held[1] ~= 'claimed' then return {'lost'} end",
        "journeys_sent",
        ("who slept went on with a message of another",),
    ),
    Mutant(
        "what was being sent is sent again",
        "consumers/messages/scripts.py",
        "if state == 'sending' and redis.call('HGET', row, 'repeat') ~= '1' then",
        "if false then",
        "journeys_sent",
        ("a mail came twice",),
    ),
    Mutant(
        "who unsubscribed while a message waited is not asked",
        "consumers/rules/send_gate.py",
        '    if not allowed_now_in_all("consent", on_topic, now_ms):\n',
        "    if False:\n",
        "journeys_sent",
        ("mails differ",),
    ),
    Mutant(
        "what a cart holds by now is not asked for",
        "consumers/messages/gate.py",
        "    if looks and contents_of(looks[-1].lines) != contents_of(due.lines):\n",
        "    if False:\n",
        "journeys_sent",
        ("mails differ",),
    ),
    Mutant(
        "who was out of sight is written to",
        "consumers/messages/gate.py",
        "            decide_by_sight(anchor_ms, due_ms, self._bases, decided, now_ms),\n",
        "",
        "journeys_sent",
        ("mailed: a message after a withdrawal",),
        (9, 80),
    ),
]
"""Of who gets which mail, on a real Valkey and to a real mail server."""
PEOPLE = 20
"""So few that a month takes a second; each is found in the first of its seeds, as stories are now."""


@dataclass(frozen=True, slots=True)
class RealMutant:
    """What is taken out, and the test on a real server that must fail, saying `says`."""

    name: str
    file: str
    old: str
    new: str
    test: str
    says: str


STORES = "tests/contracts/test_memory_stores.py"
REAL_MUTANTS = [
    RealMutant(
        "a table of counters without a version",
        "sinks/migrations/0001_counters.sql",
        "ReplacingMergeTree(last_off)",
        "ReplacingMergeTree",
        f"{STORES}::test_tables_of_clickhouse_do_what_the_model_does",
        "counters differ from the model",
    ),
    RealMutant(
        "a table of progress without a version",
        "sinks/migrations/0001_counters.sql",
        "ReplacingMergeTree(next_off)",
        "ReplacingMergeTree",
        f"{STORES}::test_tables_of_clickhouse_do_what_the_model_does",
        "progress differs from the model",
    ),
    RealMutant(
        "pids are counted, not persons",
        "consumers/campaigns/counts.py",
        "_PEOPLE_BY_LINKS if await",
        "_PEOPLE if await",
        "tests/contracts/test_people.py",
        "people counted otherwise",
    ),
    RealMutant(
        "set-if-newer without the generation",
        "sinks/profile_store.py",
        "if g > new_g or (g == new_g and v >= new_v) then",
        "if v >= new_v then",
        f"{STORES}::test_scripts_of_redis_do_what_the_model_does",
        "scripts differ from the model",
    ),
    RealMutant(
        "a cursor is moved whatever is there",
        "sinks/profile_store.py",
        "if at ~= ARGV[1] and at ~= ARGV[2] then return 0 end",
        "",
        f"{STORES}::test_scripts_of_redis_do_what_the_model_does",
        "scripts differ from the model",
    ),
    RealMutant(
        "a lane begins at its group's offsets",
        "runtime/lane_transport.py",
        "            await asyncio.wait_for(self.seek_wait(wanted), SEEK_WITHIN_S)\n",
        "            told = await self.seek_to_committed()\n"
        "            wanted |= {tp: at for tp, at in told.items() if at is not None and at >= 0}\n"
        "            await asyncio.wait_for(self.seek_wait(wanted), SEEK_WITHIN_S)\n",
        "tests/faults/test_lanes.py::test_lane_begins_at_its_cursor_whatever_the_group_says",
        "the chain of offsets is broken",
    ),
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory, checkout: Path) -> Path:
    """The tree, compiled."""
    root = tmp_path_factory.mktemp("mutants")
    for part in PARTS:
        shutil.copytree(
            checkout / part, root / part, ignore=shutil.ignore_patterns("__pycache__", "page")
        )
    shutil.copy(checkout / "pyproject.toml", root)
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(root)], check=True)
    return root


@pytest.fixture(scope="module")
def warm(copy: Path) -> Iterator[Warm]:
    """Begins models quickly, on the copy as it then is."""
    with closing(Warm(copy, "tests.model.runners")) as found:
        yield found


@contextmanager
def changed(root: Path, file: str, old: str, new: str) -> Iterator[None]:
    """The copy without a safeguard, until the block is left."""
    path = root / file
    text = path.read_text()
    assert text.count(old) == 1, (
        f"{file} has {text.count(old)} places like {old!r}: adapt the mutant"
    )
    path.write_text(text.replace(old, new))
    for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
        compiled.unlink()
    try:
        yield
    finally:
        path.write_text(text)


def run(root: Path, *arguments: str) -> tuple[int, str]:
    """Run Python on the copy; its exit code, and what it said."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def run_model(warm: Warm, model: str, first: int, end: int, *more: str) -> tuple[int, str]:
    """Run seeds of a model on the copy, in a process of its own."""
    return warm.run("tests.model", model, str(first), str(end), *more, within_s=WITHIN_S)


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_model_notices_a_missing_safeguard(copy: Path, warm: Warm, mutant: Mutant) -> None:
    assert_noticed(copy, warm, mutant)


@pytest.mark.parametrize("mutant", SENDING, ids=[mutant.name for mutant in SENDING])
def test_mails_show_a_missing_safeguard(
    copy: Path, warm: Warm, redis_url: str, mutant: Mutant
) -> None:
    """On the tree as it is the same mails are right: tests/model/test_journeys.py."""
    assert_noticed(copy, warm, mutant, redis_url, str(PEOPLE))


def assert_noticed(copy: Path, warm: Warm, mutant: Mutant, *more: str) -> None:
    """Some seed of the model says that the mutant broke what it should."""
    first, end = mutant.seeds
    with changed(copy, mutant.file, mutant.old, mutant.new):
        for _ in range(MOST_OTHER_ENDS):
            code, said = run_model(warm, mutant.model, first, end, *more)
            assert code == 3, said[-2000:]
            if any(promise in said for promise in mutant.broken):
                return
            # It was noticed, but by something that would have been safe: there must be worse.
            found = re.search(r"seed (\d+) broke", said)
            assert found is not None, said[-2000:]
            first = int(found[1]) + 1
    raise AssertionError(said[-2000:])


@pytest.mark.parametrize("model", ["lanes", "counters", "profiles", "journeys"])
def test_model_finds_nothing_where_nothing_is_missing(warm: Warm, model: str) -> None:
    code, said = run_model(warm, model, 0, 60)
    assert code == 0, said[-2000:]
    assert f"kept: {model}" in said


def _on_a_real_server(mutant: RealMutant) -> object:
    marks = [pytest.mark.apache] if "lanes" in mutant.test else []
    return pytest.param(mutant, id=mutant.name, marks=marks)


@pytest.mark.parametrize("mutant", [_on_a_real_server(mutant) for mutant in REAL_MUTANTS])
def test_real_server_shows_a_missing_safeguard(copy: Path, mutant: RealMutant) -> None:
    """The same tests pass on the tree as it is, in their own folders."""
    with changed(copy, mutant.file, mutant.old, mutant.new):
        code, said = run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", mutant.test)
    assert code == 1, said[-2000:]
    assert mutant.says in said, said[-2000:]
