  -- What is ours in schema public, and who may call it. The anonymous role may call what a policy that applies to it
  -- asks (mirror.functions), and nothing else.
  values ('mirror_claim', '{service_role}'), ('mirror_apply', '{service_role}'), ('mirror_status', '{service_role}'),
         ('mirror_adopt', '{service_role}'), ('mirror_compare', '{service_role}'), ('mirror_insecurities', '{service_role}'),
         ('mirror_open_channels', '{service_role}'), ('mirror_try', '{service_role}'),
         ('mirror_staleness', '{authenticated,service_role}'), ('mirror_is_fresh', '{authenticated,service_role}'),
         ('mirror_has', '{authenticated,service_role}'), ('mirror_check_token', '{authenticated,service_role}'),
         ('my_companions', '{authenticated,service_role}'),
         ('my_companion_profiles', '{authenticated,service_role}'), ('current_topic', '{authenticated,service_role}'),
         ('my_user_id', '{authenticated,service_role}'),
         ('is_trip_member', '{authenticated,service_role}'), ('my_trips', '{authenticated,service_role}'),
         ('is_topic_member', '{authenticated,service_role}'), ('is_own_topic', '{authenticated,service_role}')
