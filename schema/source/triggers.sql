-- The source side, part 4: the triggers of one table, in one short transaction of its own, and only when they are missing
-- or wrong. AFTER ... STATEMENT, one per event (transition tables allow no more), ENABLE ALWAYS so that a restore or
-- another replication with session_replication_role = replica is seen too. CREATE OR REPLACE, never DROP: that would lock
-- out readers too.
create or replace trigger mirror_insert after insert on {{relation}}
  referencing new table as new_rows for each statement execute function mirror.{{table}}_insert();
alter table {{relation}} enable always trigger mirror_insert;

create or replace trigger mirror_update after update on {{relation}}
  referencing old table as old_rows new table as new_rows for each statement execute function mirror.{{table}}_update();
alter table {{relation}} enable always trigger mirror_update;

create or replace trigger mirror_delete after delete on {{relation}}
  referencing old table as old_rows for each statement execute function mirror.{{table}}_delete();
alter table {{relation}} enable always trigger mirror_delete;

create or replace trigger mirror_truncate after truncate on {{relation}}
  for each statement execute function mirror.{{table}}_truncate();
alter table {{relation}} enable always trigger mirror_truncate;


insert into mirror.origin (tbl, relation) values ('{{table}}', {{literal}}::regclass)
on conflict (tbl) do update set relation = excluded.relation;
