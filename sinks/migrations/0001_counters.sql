-- What has been counted, what it adds up to, and how far: written in this order, read with FINAL.
-- Every row is a function of a prefix of events.accepted, so that a repeated, late or stale write
-- states what is known already. Partitions of a table would keep equal rows apart: there are none.

CREATE TABLE IF NOT EXISTS facts
(
    campaign_id String COMMENT 'Campaign the event, or the visit, belongs to; (none) when it names none',
    event_date Date COMMENT 'Day of occurred_at, UTC',
    generation UInt32 COMMENT 'Incarnation of the log in which the event was accepted',
    kp UInt32 COMMENT 'Partition of events.accepted',
    off UInt64 COMMENT 'Offset in that partition',
    idx UInt16 COMMENT '0 is the event itself, 1 and up are the visits it changed',
    pid FixedString(16) COMMENT 'Pseudonym of the person',
    event_id FixedString(16) COMMENT 'Hash of source and messageId',
    occurred_at DateTime64(3, 'UTC') COMMENT 'When it happened; of a visit, when it started. Within 1970 to 2106: see sinks/rules/rows.py',
    received_at DateTime64(3, 'UTC') COMMENT 'When the collector took the event',
    metric LowCardinality(String) COMMENT 'What it adds to (schemas/counters.py); empty when to nothing',
    value Int64 COMMENT 'What it adds to that metric',
    amount_micro Int64 COMMENT 'What it adds to revenue (of orders) or refunded (of refunds), in millionths of currency',
    currency LowCardinality(String) COMMENT 'ISO 4217 code of amount_micro; empty when there is no amount',
    is_visitor UInt8 COMMENT '1 if it makes its person a visitor of the campaign',
    src_topic LowCardinality(String) COMMENT 'Input record behind this: topic',
    src_partition UInt32 COMMENT 'Input record behind this: partition',
    src_offset UInt64 COMMENT 'Input record behind this: offset',
    lane UInt32 COMMENT 'Lane that accepted it',
    seq UInt64 COMMENT 'Number of the transaction of that lane',
    `index` UInt32 COMMENT 'Position within that transaction'
)
ENGINE = ReplacingMergeTree
ORDER BY (campaign_id, event_date, kp, pid, event_id, generation, off, idx)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS counters
(
    campaign_id String,
    metric LowCardinality(String) COMMENT 'A count or an amount of money of schemas/counters.py',
    currency LowCardinality(String) COMMENT 'ISO 4217 code of an amount; empty of a count',
    minute DateTime('UTC') COMMENT 'Start of the minute of event time',
    generation UInt32 COMMENT 'Incarnation of the log behind it',
    kp UInt32 COMMENT 'Partition of events.accepted behind it',
    value Int128 COMMENT 'Sum over every fact of this key with off <= last_off; money in millionths. Wide, so that no sum of hostile amounts ever fails to be stored',
    last_off UInt64 COMMENT 'Offset of the newest fact in the sum; the version of this row'
)
ENGINE = ReplacingMergeTree(last_off)
ORDER BY (campaign_id, metric, currency, minute, generation, kp)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS progress
(
    sink LowCardinality(String) COMMENT 'Name of the role',
    generation UInt32 COMMENT '[kafka] generation of the role when it wrote this',
    topic LowCardinality(String),
    kp UInt32 COMMENT 'Partition of topic',
    next_off UInt64 COMMENT 'First offset not yet counted; the version of this row',
    records UInt64 COMMENT 'Records counted since this generation began',
    lanes Map(UInt32, Tuple(UInt32, UInt64, UInt32)) COMMENT 'Tripwire: of each lane the highest (generation, seq, index) counted',
    updated_at DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(next_off)
ORDER BY (sink, generation, topic, kp)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
