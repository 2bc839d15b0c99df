"""Looking at the daemon: what it knows of itself, as metrics, health and log lines."""
