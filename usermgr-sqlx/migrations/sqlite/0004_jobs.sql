-- Jobs that come back, and which programs may go on working after a migration.

-- A row for each job that runs once across instances: who has its run, and how the last one ended.
CREATE TABLE usermgr_jobs (
    name TEXT PRIMARY KEY,
    -- The start of the period that was taken last.
    period INTEGER NOT NULL,
    lease BLOB,
    lease_until INTEGER,
    -- When a run that was not done is due again.
    retry_at INTEGER,
    started_at INTEGER NOT NULL,
    ended_at INTEGER,
    outcome TEXT,
    attempts INTEGER NOT NULL,
    runs INTEGER NOT NULL,
    failures INTEGER NOT NULL
) STRICT;

-- Programs that know the tables of this version, or a later one, work on the tables as this migration leaves them.
ALTER TABLE usermgr_schema ADD COLUMN oldest BIGINT;
