-- What a user of Supabase writes to open private channels to members: one policy to receive, one to send and be present.
-- The channel of a trip is called trip:<id>.

create policy "members receive" on realtime.messages for select to authenticated
using (
  realtime.topic() like 'trip:%' and extension in ('broadcast', 'presence')
  and (select public.is_trip_member(split_part(realtime.topic(), ':', 2)))
);

create policy "members send" on realtime.messages for insert to authenticated
with check (
  realtime.topic() like 'trip:%' and extension in ('broadcast', 'presence')
  and (select public.is_trip_member(split_part(realtime.topic(), ':', 2)))
);
