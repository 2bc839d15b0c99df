-- Is p, in schema public, ours? Its body says so; the names are such as an application may have, too. The bodies of before
  -- did not: those had this search_path, and asked us.
  coalesce(p.prosrc like {{ours}} || '%' or 'search_path=""' = any (p.proconfig) and p.prosrc ~ 'mirror[._]|public[.]is_trip_member', false)
