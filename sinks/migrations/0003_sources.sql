-- Which source sent the event: what an incident at one source touched can be told (GDPR Art. 33).

ALTER TABLE facts
    ADD COLUMN IF NOT EXISTS source LowCardinality(String) COMMENT 'Source of the write key that sent the event; empty in rows of before';
