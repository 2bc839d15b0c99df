-- Is p, in schema public, ours? Its body says so; an application may have functions of these names, too. Bodies of
  -- earlier releases did not say it: those had this search_path, and asked us.
  coalesce(p.prosrc like {{ours}} || '%'
           or 'search_path=""' = any (p.proconfig) and p.prosrc ~ 'mirror[._]|public[.]is_trip_member', false)
