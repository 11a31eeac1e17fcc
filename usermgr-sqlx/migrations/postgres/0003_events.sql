-- Events have an outbox of their own, in one order for everybody; the other outbox holds mails.

-- `seq` is given while the user's row is locked: of one user it has the order of commits. `position` is given after the
-- commit, by one at a time. `due_at` stands at the oldest undelivered event of each user only; while a lease holds, it is
-- the lease's end.
CREATE TABLE usermgr_events (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id UUID NOT NULL UNIQUE,
    position BIGINT UNIQUE,
    kind TEXT NOT NULL,
    user_id UUID NOT NULL,
    session_id UUID,
    at TIMESTAMPTZ NOT NULL,
    due_at TIMESTAMPTZ,
    attempts BIGINT NOT NULL,
    lease BYTEA,
    delivered_at TIMESTAMPTZ
);
CREATE INDEX usermgr_events_unnumbered ON usermgr_events (seq) WHERE position IS NULL;
CREATE INDEX usermgr_events_due ON usermgr_events (due_at, position) WHERE due_at IS NOT NULL;
CREATE INDEX usermgr_events_undelivered ON usermgr_events (user_id, position) WHERE delivered_at IS NULL;

-- One row: the position that was given last, and up to where events were purged. Whoever changes positions locks it.
CREATE TABLE usermgr_event_feed (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    last BIGINT NOT NULL,
    purged BIGINT NOT NULL
);
INSERT INTO usermgr_event_feed (id, last, purged) VALUES (1, 0, 0);

INSERT INTO usermgr_events (id, kind, user_id, at, attempts)
    SELECT id, name, user_id, created_at, 0 FROM usermgr_outbox
    WHERE kind = 'event' AND status = 'queued' AND user_id IS NOT NULL ORDER BY id;
DELETE FROM usermgr_outbox WHERE kind = 'event';
ALTER TABLE usermgr_outbox DROP COLUMN kind;
