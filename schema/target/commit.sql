
insert into mirror.state (version, rendered, types, allow_cascade, messages)
values ({{version}}, {{rendered}}, {{types}}, {{allow_cascade}}, mirror.messages())
on conflict (one) do update set version = excluded.version, rendered = excluded.rendered, types = excluded.types,
                                allow_cascade = excluded.allow_cascade, messages = excluded.messages;
-- Of a release that had no seal; it had no lives either, so the next claim has everything compared.
select mirror.keep(s) from mirror.state as s where s.seal is null and s.life is null;
update mirror.state set sealed = mirror.fingerprint() where one;
commit;
