-- How soon parts that were replaced leave the disk, and how many statements of before are remembered:
-- deleted rows of erased people lie in those parts, and the statements name them (ADR 0016). Newer
-- engines look for old parts after 30 seconds, and while little happens only every 5 minutes.

ALTER TABLE facts
    MODIFY SETTING old_parts_lifetime = 480, cleanup_delay_period = 5, max_cleanup_delay_period = 60, finished_mutations_to_keep = 1;

ALTER TABLE accesses
    MODIFY SETTING old_parts_lifetime = 480, cleanup_delay_period = 5, max_cleanup_delay_period = 60, finished_mutations_to_keep = 1;
