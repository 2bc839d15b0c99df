"""A minimal copy of users, trips and memberships in Supabase that can prove how fresh it is."""

__version__ = "0.1.0"
