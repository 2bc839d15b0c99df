-- The target side: tables that were there before the mirror. The first install notes what it takes from other roles on
-- them, and `mirror uninstall target` gives it back. Installing again adds nothing and forgets nothing.
create table if not exists mirror.taken (step integer not null, undo text primary key);
alter table mirror.taken enable row level security;

insert into mirror.taken (step, undo)
select t.step, t.undo from (
{{taken}}) as t
where t.undo is not null and not exists (select from mirror.state)
on conflict do nothing;
