-- For a database that was restored from a backup, before servers start; for PostgreSQL and for SQLite. What was done since
-- the backup is forgotten, and three things must not come back to life:

-- sessions that were ended since, by signing out, a new password or an administrator. Everybody signs in again;
DELETE FROM usermgr_sessions;

-- codes and links that were used or voided since. Mails that wait with one are not sent; users ask for another;
DELETE FROM usermgr_codes WHERE closed_at IS NULL;

-- positions of events that were told since: readers of the feed who are ahead would pass over the next ones. Whoever reads
-- it has to read users anew too.
UPDATE usermgr_event_feed SET last = last + 1000000000;
