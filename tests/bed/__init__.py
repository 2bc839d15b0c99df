"""What the tests stand on: real PostgreSQL servers, databases cloned per test, a proxy that misbehaves on request."""
