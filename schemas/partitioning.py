"""In which partition does a key lie?

Kafka's Java partitioner: murmur2 of the key, sign bit cleared, modulo the partition count
(org.apache.kafka.common.utils.Utils.murmur2; librdkafka calls it murmur2_random). A pid in another
partition than its own would have two lanes remember two halves of one person.
"""

_SEED = 0x9747B28C
_M = 0x5BD1E995
_MASK = 0xFFFFFFFF


def murmur2(key: bytes) -> int:
    """The 32-bit murmur2 hash of `key`, unsigned."""
    length = len(key)
    h = _SEED ^ length
    whole = length & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(key[at : at + 4], "little") * _M & _MASK
        k = (k ^ k >> 24) * _M & _MASK
        h = h * _M & _MASK ^ k
    rest = key[whole:]
    if rest:
        h = (h ^ int.from_bytes(rest, "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return h ^ h >> 15


def partition_of(key: bytes, partitions: int) -> int:
    """The partition that every producer of ours, and Java's, chooses for `key`."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
