"""How fast the mirror is, beside its floor and beside native logical replication, in one run. See README.md."""
