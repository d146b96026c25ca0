-- Which pids are of one person, as the lanes said it: people are counted by it (ADR 0020). A row is a
-- record of events.accepted and nothing is replaced but by itself, so that every reader sees the links
-- of the prefix that it counts.

CREATE TABLE IF NOT EXISTS links
(
    root FixedString(16) COMMENT 'identifier for analytics: Pseudonym that stands for the person',
    member FixedString(16) COMMENT 'identifier for analytics: Pseudonym that joins the person, or leaves',
    is_linked UInt8 COMMENT 'behaviour for analytics: 1 if it joins, 0 if it leaves; the row of the highest (generation, off) is in force',
    by_erasure UInt8 COMMENT 'technical for accountability: 1 if it leaves because the root is erased: until then it was of the person',
    generation UInt32 COMMENT 'technical for operation: Incarnation of the log',
    kp UInt32 COMMENT 'technical for operation: Partition of events.accepted, that of the root',
    off UInt64 COMMENT 'technical for operation: Offset in that partition; 0 in rows that join anonymous ones',
    salt FixedString(16) COMMENT 'technical for accountability: Random. Names what joins the anonymous rows of people who are erased together; zeros in rows that join such',
    INDEX by_member member TYPE bloom_filter GRANULARITY 4
)
ENGINE = ReplacingMergeTree
ORDER BY (root, member, kp, generation, off)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, old_parts_lifetime = 480, cleanup_delay_period = 5, max_cleanup_delay_period = 60, finished_mutations_to_keep = 1;
