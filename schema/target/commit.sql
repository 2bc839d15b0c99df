
insert into mirror.state (version, rendered, types, allow_cascade, messages)
values ({{version}}, {{rendered}}, {{types}}, {{allow_cascade}}, mirror.messages())
on conflict (one) do update set version = excluded.version, rendered = excluded.rendered, types = excluded.types,
                                allow_cascade = excluded.allow_cascade, messages = excluded.messages;
update mirror.state set sealed = mirror.fingerprint() where one;
commit;
