-- Addresses that no mail goes to: it came back, or is not wanted.
CREATE TABLE usermgr_undeliverable (
    email_key TEXT PRIMARY KEY,
    reason TEXT NOT NULL,
    since INTEGER NOT NULL
) STRICT;
CREATE INDEX usermgr_undeliverable_since ON usermgr_undeliverable (since);

-- Whom a mail is for, as marks know addresses.
ALTER TABLE usermgr_outbox ADD COLUMN email_key TEXT;
UPDATE usermgr_outbox SET email_key = lower(email) WHERE email IS NOT NULL;
