-- Events have an outbox of their own, in one order for everybody; the other outbox holds mails.

-- `seq` is given while the user's row is locked: of one user it has the order of commits. `position` is given after the
-- commit, by one at a time. `due_at` stands at the oldest undelivered event of each user only; while a lease holds, it is
-- the lease's end.
CREATE TABLE usermgr_events (
    seq INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    position INTEGER UNIQUE,
    kind TEXT NOT NULL,
    user_id BLOB NOT NULL,
    session_id BLOB,
    at INTEGER NOT NULL,
    due_at INTEGER,
    attempts INTEGER NOT NULL,
    lease BLOB,
    delivered_at INTEGER
) STRICT;
CREATE INDEX usermgr_events_unnumbered ON usermgr_events (seq) WHERE position IS NULL;
CREATE INDEX usermgr_events_due ON usermgr_events (due_at, position) WHERE due_at IS NOT NULL;
CREATE INDEX usermgr_events_undelivered ON usermgr_events (user_id, position) WHERE delivered_at IS NULL;

-- One row: the position that was given last, and up to where events were purged. Whoever changes positions locks it.
CREATE TABLE usermgr_event_feed (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    last INTEGER NOT NULL,
    purged INTEGER NOT NULL
) STRICT;
INSERT INTO usermgr_event_feed (id, last, purged) VALUES (1, 0, 0);

INSERT INTO usermgr_events (id, kind, user_id, at, attempts)
    SELECT id, name, user_id, created_at, 0 FROM usermgr_outbox
    WHERE kind = 'event' AND status = 'queued' AND user_id IS NOT NULL ORDER BY id;
DELETE FROM usermgr_outbox WHERE kind = 'event';
ALTER TABLE usermgr_outbox DROP COLUMN kind;
