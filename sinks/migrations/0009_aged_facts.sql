-- Of which days and campaigns facts are gone with age, so that verifying knows what it may not look
-- for, and nobody counts people of whom some are missing.

CREATE TABLE IF NOT EXISTS aged_facts
(
    day Date COMMENT 'technical for operation: Day, UTC, of the later of received_at and occurred_at. All days up to the newest here are gone, or about to be',
    kp UInt32 COMMENT 'technical for operation: Partition of events.accepted',
    campaign_id String COMMENT 'technical for operation: Campaign of such facts; empty of stand-ins of erased people',
    events UInt64 COMMENT 'technical for operation: How many events had such facts; the version of this row, because facts only become fewer'
)
ENGINE = ReplacingMergeTree(events)
ORDER BY (day, kp, campaign_id)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
