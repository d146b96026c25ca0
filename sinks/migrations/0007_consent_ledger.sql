-- What proves that no record of consents.changed was changed, left out or moved since it was written:
-- a hash chain by partition, and its signed heads (ADR 0010). Nothing of a person but hashes.

CREATE TABLE IF NOT EXISTS consent_chain
(
    topic LowCardinality(String) COMMENT 'technical for accountability: The consents.changed that is chained',
    generation UInt32 COMMENT 'technical for accountability: Incarnation of the log',
    kp UInt32 COMMENT 'technical for accountability: Partition',
    off UInt64 COMMENT 'technical for accountability: Offset of the record',
    head FixedString(32) COMMENT 'technical for accountability: SHA-256 over the head before it, offset, key and value'
)
ENGINE = ReplacingMergeTree
ORDER BY (topic, generation, kp, off)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS consent_heads
(
    topic LowCardinality(String) COMMENT 'technical for accountability: The consents.changed that is chained',
    generation UInt32 COMMENT 'technical for accountability: Incarnation of the log',
    kp UInt32 COMMENT 'technical for accountability: Partition',
    next_off UInt64 COMMENT 'technical for accountability: First offset that the head does not cover',
    head FixedString(32) COMMENT 'technical for accountability: Head of the chain after the record before next_off',
    signed_at DateTime64(3, 'UTC') COMMENT 'technical for accountability: When it was signed',
    public_key String COMMENT 'technical for accountability: Ed25519 public key, base64',
    signature String COMMENT 'technical for accountability: Over all of the above, base64'
)
ENGINE = MergeTree
ORDER BY (topic, generation, kp, next_off, signed_at)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
