"""The whole mirror while connections are cut, servers die and processes stand still."""
