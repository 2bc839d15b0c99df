  -- What is ours in schema public, and who may call it. A policy without TO is evaluated for anon too, and one that may not
  -- call its function is an error for everybody on that topic: so anon may ask what policies ask, and the answer is no.
  values ('mirror_claim', '{service_role}'), ('mirror_apply', '{service_role}'), ('mirror_status', '{service_role}'),
         ('mirror_adopt', '{service_role}'), ('mirror_compare', '{service_role}'), ('mirror_insecurities', '{service_role}'),
         ('mirror_try', '{service_role}'),
         ('mirror_staleness', '{authenticated,service_role}'), ('mirror_is_fresh', '{authenticated,service_role}'),
         ('mirror_has', '{authenticated,service_role}'), ('mirror_check_token', '{authenticated,service_role}'),
         ('my_companions', '{authenticated,service_role}'), ('current_topic', '{authenticated,service_role}'),
         ('my_user_id', '{anon,authenticated,service_role}'),
         ('is_trip_member', '{anon,authenticated,service_role}'), ('my_trips', '{anon,authenticated,service_role}'),
         ('is_topic_member', '{anon,authenticated,service_role}'), ('is_own_topic', '{anon,authenticated,service_role}')
