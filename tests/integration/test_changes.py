"""Where does a lane believe that its log ends, while somebody's transaction is open in it?"""

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from runtime.changes import ChangeReader
from tests.conftest import FreshName
from tests.waiting import eventually


def test_record_behind_an_open_transaction_lies_on_the_log(
    kafka: str, fresh_name: FreshName
) -> None:
    """Acknowledged, and readable only later: of whoever it is about not everything is known."""
    topic = fresh_name("moves")
    admin = AdminClient({"bootstrap.servers": kafka})
    for made in admin.create_topics([NewTopic(topic, num_partitions=1)]).values():
        made.result(30)
    lane = Producer({"bootstrap.servers": kafka, "transactional.id": fresh_name("lane")})
    lane.init_transactions(30)
    lane.begin_transaction()
    lane.produce(topic, b"told by a lane that may have died", partition=0)
    assert lane.flush(30) == 0
    collector = Producer({"bootstrap.servers": kafka, "acks": "all"})
    collector.produce(topic, b"claimed by a call", partition=0)
    assert collector.flush(30) == 0
    reader = ChangeReader(kafka, [topic], 0, fresh_name("group"))
    try:
        assert reader.ends() == {topic: 0}
        assert reader.ends_of_all([topic]) == {topic: 2}
        lane.abort_transaction(30)
        eventually(lambda: reader.ends()[topic] >= 2)
        changes, _ = reader.read(topic, 0, 2)
        assert [each.value for each in changes] == [b"claimed by a call"]
        assert reader.ends_of_all([topic]) == reader.ends()
    finally:
        reader.close()
