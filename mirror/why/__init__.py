"""mirror why: may this user enter this trip now, and why (not)? Reads both sides, changes neither."""
