"""Does our partitioner agree with Java's, on known keys? (tests/contracts asks a real producer.)"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.partitioning import murmur2, partition_of


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        # Apache Kafka, clients/src/test/java/org/apache/kafka/common/utils/UtilsTest.java
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_hash_equals_javas(key: bytes, expected: int) -> None:
    assert murmur2(key) == expected % 2**32


@given(st.binary(max_size=64), st.integers(1, 1_024))
def test_partition_is_one_of_those_there_are(key: bytes, partitions: int) -> None:
    assert 0 <= partition_of(key, partitions) < partitions


def test_random_pids_spread_evenly() -> None:
    counts = [0] * 8
    for number in range(8_000):
        counts[partition_of(number.to_bytes(16, "big"), 8)] += 1
    assert 850 < min(counts) <= max(counts) < 1_150
