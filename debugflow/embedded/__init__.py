"""The one-command run-time: embedded PostgreSQL and Valkey, supervised processes.

Nothing here is needed in production, where DATABASE_URL and REDIS_URL name real servers.
"""
