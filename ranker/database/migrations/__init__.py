"""What Alembic runs: ``env`` and the numbered ``versions``."""
