"""Do the members of a group share partitions out, and does the group keep what it is told?

Group offsets are written for lag tools only: where to go on is in our own stores. What counts is
that one partition never has two members that read, and that a named member (KIP-345) has its
partitions back after a crash without a rebalance.
"""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from tests.conftest import FreshName
from tests.contracts.broker import Broker
from tests.contracts.conftest import MakeTopic
from tests.waiting import eventually

PARTITIONS = 4
SESSION_MS = 30_000
"""Longer than a busy machine takes from the end of a member to its return; no test waits for it."""


class Member:
    """A consumer of a group, and what it holds."""

    def __init__(self, consumer: Consumer, topic: str) -> None:
        self.consumer = consumer
        self.held: set[int] = set()
        self.assignments = 0
        self.errors: list[str] = []
        consumer.subscribe(
            [topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked
        )

    def poll(self) -> None:
        """Take part; records are left aside."""
        message = self.consumer.poll(0.02)
        error = message.error() if message is not None else None
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            self.errors.append(error.name())

    def _assigned(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self.assignments += 1
        self.held |= {place.partition for place in partitions}

    def _revoked(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self.held -= {place.partition for place in partitions}


class Group:
    """Members of one group on one topic."""

    def __init__(self, broker: Broker, topic: str, name: str, stack: ExitStack) -> None:
        self.topic, self.name = topic, name
        self._broker = broker
        self._stack = stack
        self.members: list[Member] = []

    def join(self, instance_id: str = "") -> Member:
        """One more member."""
        named = {"group_instance_id": instance_id} if instance_id else {}
        consumer = self._stack.enter_context(
            self._broker.consumer(
                group_id=self.name,
                auto_offset_reset="earliest",
                session_timeout_ms=SESSION_MS,
                # Members learn of a rebalance by it.
                heartbeat_interval_ms=200,
                partition_assignment_strategy="range",
                **named,
            )
        )
        self.members.append(Member(consumer, self.topic))
        return self.members[-1]

    def leave(self, member: Member) -> None:
        """It closes; a named one is still missed, an unnamed one is not."""
        self.members.remove(member)
        member.consumer.close()

    def shared(self, *counts: int) -> bool:
        """True if the members hold so many each, all partitions, none twice."""
        for member in self.members:
            member.poll()
        held = [p for member in self.members for p in member.held]
        found = sorted(len(member.held) for member in self.members)
        assert found == sorted(counts), [member.held for member in self.members]
        return sorted(held) == list(range(PARTITIONS))


@pytest.fixture
def group(broker: Broker, make_topic: MakeTopic, fresh_name: FreshName) -> Iterator[Group]:
    with ExitStack() as stack:
        yield Group(broker, make_topic(PARTITIONS), fresh_name("group"), stack)


def test_members_that_join_and_leave_share_all_partitions_and_none_twice(group: Group) -> None:
    first = group.join()
    eventually(lambda: group.shared(4), every_s=0)
    second = group.join()
    eventually(lambda: group.shared(2, 2), every_s=0)
    group.leave(first)
    eventually(lambda: group.shared(4), every_s=0)
    assert second.held == set(range(PARTITIONS))


def test_named_member_that_comes_back_has_its_partitions_without_disturbing_others(
    group: Group,
) -> None:
    stays, dies = group.join("stays"), group.join("dies")
    eventually(lambda: group.shared(2, 2), every_s=0)
    held, assignments = set(dies.held), stays.assignments
    group.leave(dies)
    back = group.join("dies")
    eventually(lambda: group.shared(2, 2), every_s=0)
    assert (back.held, stays.assignments) == (held, assignments)


def test_second_process_of_a_name_takes_over_and_the_first_is_told(group: Group) -> None:
    first = group.join("same")
    eventually(lambda: group.shared(4), every_s=0)
    second = group.join("same")

    def is_told() -> list[str]:
        second.poll()
        try:
            first.poll()
        except KafkaException as error:
            return [error.args[0].name()]
        return first.errors

    assert eventually(is_told, every_s=0) == ["_FATAL"]
    group.members.remove(first)
    eventually(lambda: group.shared(4), every_s=0)


def test_committed_offset_comes_back_with_its_metadata(
    broker: Broker, topic: str, fresh_name: FreshName
) -> None:
    name = fresh_name("group")
    with broker.consumer(group_id=name) as consumer:
        [before] = consumer.committed([TopicPartition(topic, 0)], 30)
        assert before.offset < 0
        place = TopicPartition(topic, 0, 3, "seq 7")
        assert consumer.commit(offsets=[place], asynchronous=False)[0].error is None
    with broker.consumer(group_id=name) as consumer:
        [after] = consumer.committed([TopicPartition(topic, 0)], 30)
        assert after.offset == 3
        assert after.metadata == "seq 7"


def test_member_goes_on_where_the_group_committed(
    broker: Broker, topic: str, fresh_name: FreshName
) -> None:
    broker.put(topic, *(b"%d" % number for number in range(5)))
    name = fresh_name("group")
    with broker.consumer(group_id=name) as consumer:
        consumer.commit(offsets=[TopicPartition(topic, 0, 3)], asynchronous=False)
    with broker.consumer(group_id=name) as consumer:
        consumer.subscribe([topic])
        message = eventually(lambda: consumer.poll(0.2), every_s=0)
        assert (message.error(), message.offset(), message.value()) == (None, 3, b"3")
