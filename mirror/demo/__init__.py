"""The whole mirror on one machine: embedded servers, believable traffic, and a story told in a terminal."""
