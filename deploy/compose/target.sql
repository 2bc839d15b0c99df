-- Runs after mirror/demo/supabase.sql: the role that a customer of a hosted project logs in as gets a password. It is no
-- superuser, as there.
alter role hosted_postgres password 'target-demo';
