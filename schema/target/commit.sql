
insert into mirror.state (version, rendered, types, allow_cascade)
values ({{version}}, {{rendered}}, {{types}}, {{allow_cascade}})
on conflict (one) do update set version = excluded.version, rendered = excluded.rendered, types = excluded.types,
                                allow_cascade = excluded.allow_cascade;
update mirror.state set sealed = mirror.fingerprint() where one;
commit;
