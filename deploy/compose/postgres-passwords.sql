-- The passwords of the roles of postgres-roles.sql, from the files that compose.yaml mounts. For psql.
\set owner `cat /run/secrets/owner_password`
\set app `cat /run/secrets/app_password`
ALTER ROLE usermgr_owner PASSWORD :'owner';
ALTER ROLE usermgr_app PASSWORD :'app';
