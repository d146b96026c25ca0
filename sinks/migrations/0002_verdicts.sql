-- What the reconciler found at each look: whether live counters equalled the facts, and when.

CREATE TABLE IF NOT EXISTS verdicts
(
    topic LowCardinality(String) COMMENT 'The events.accepted behind the counters',
    checked_at DateTime64(3, 'UTC') COMMENT 'When the look ended',
    differences UInt64 COMMENT '0: live = verified',
    counters UInt64 COMMENT 'Counter rows compared',
    facts UInt64 COMMENT 'Facts counted again',
    took_ms UInt32,
    next_by DateTime64(3, 'UTC') COMMENT 'The next look has ended by then, unless nobody looks'
)
ENGINE = MergeTree
ORDER BY (topic, checked_at)
TTL toDateTime(checked_at) + INTERVAL 90 DAY;
