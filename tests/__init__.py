"""The tests of the permission mirror."""
