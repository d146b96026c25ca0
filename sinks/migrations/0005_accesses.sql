-- Who read whose data, and which: written before the answer is given (ADR 0012).

CREATE TABLE IF NOT EXISTS accesses
(
    read_at DateTime64(3, 'UTC') COMMENT 'technical for accountability: When the data were given out',
    pid FixedString(16) COMMENT 'identifier for accountability: Pseudonym of the person whose data were read',
    role LowCardinality(String) COMMENT 'technical for accountability: Roles of the API key that asked',
    kind LowCardinality(String) COMMENT 'technical for accountability: What was asked for: profile, export',
    fields Array(LowCardinality(String)) COMMENT 'technical for accountability: What the answer held; traits/ and the keyed hash of each trait name'
)
ENGINE = MergeTree
ORDER BY (pid, read_at)
TTL toDateTime(read_at) + INTERVAL 365 DAY
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
