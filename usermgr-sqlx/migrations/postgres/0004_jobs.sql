-- Jobs that come back, and which programs may go on working after a migration.

-- A row for each job that runs once across instances: who has its run, and how the last one ended.
CREATE TABLE usermgr_jobs (
    name TEXT PRIMARY KEY,
    -- The start of the period that was taken last.
    period TIMESTAMPTZ NOT NULL,
    lease BYTEA,
    lease_until TIMESTAMPTZ,
    -- When a run that was not done is due again.
    retry_at TIMESTAMPTZ,
    started_at TIMESTAMPTZ NOT NULL,
    ended_at TIMESTAMPTZ,
    outcome TEXT,
    attempts BIGINT NOT NULL,
    runs BIGINT NOT NULL,
    failures BIGINT NOT NULL
);

-- Programs that know the tables of this version, or a later one, work on the tables as this migration leaves them.
ALTER TABLE usermgr_schema ADD COLUMN oldest BIGINT;
