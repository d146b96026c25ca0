"""How is Faust imported without reading our command line?

It looks for --datadir and -L in sys.argv on import. Every other module takes Faust and aiokafka
from here.
"""

import sys

_argv, sys.argv = sys.argv, sys.argv[:1]
try:
    import aiokafka
    import faust
    from aiokafka.consumer.fetcher import Fetcher, FetchResult, PartitionRecords
    from aiokafka.coordinator.assignors.range import RangePartitionAssignor
    from aiokafka.errors import KafkaError
    from faust.events import Event
    from faust.topics import Topic
    from faust.transport.drivers import aiokafka as driver
    from faust.types import TP, ConsumerMessage
finally:
    sys.argv = _argv

__all__ = [
    "TP",
    "ConsumerMessage",
    "Event",
    "FetchResult",
    "Fetcher",
    "KafkaError",
    "PartitionRecords",
    "RangePartitionAssignor",
    "Topic",
    "aiokafka",
    "driver",
    "faust",
]
