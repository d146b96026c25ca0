-- Which facts no longer count: a late withdrawal marks them, and adds nothing away (ADR 0009). A mark
-- replaces the row of before whatever is merged when: the engine gets a version, and so a new table.
-- Everything may be repeated after a crash anywhere: marks are copied too, and both names hold every
-- row until the last statement. Sinks are stopped meanwhile.

ALTER TABLE facts
    ADD COLUMN IF NOT EXISTS retracted_generation UInt32 COMMENT 'technical for operation: Incarnation of the log in which it was retracted',
    ADD COLUMN IF NOT EXISTS retracted_next_off UInt64 COMMENT 'technical for operation: First offset after the retraction, in partition kp; 0 while the fact counts. The version of this row',
    ADD INDEX IF NOT EXISTS by_pid pid TYPE bloom_filter GRANULARITY 4,
    ADD INDEX IF NOT EXISTS by_retraction retracted_next_off TYPE minmax GRANULARITY 4;

DROP TABLE IF EXISTS facts_next;

CREATE TABLE facts_next AS facts
ENGINE = ReplacingMergeTree(retracted_next_off)
ORDER BY (campaign_id, event_date, kp, pid, event_id, generation, off, idx)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

INSERT INTO facts_next SELECT * FROM facts;

EXCHANGE TABLES facts AND facts_next;

DROP TABLE facts_next;
