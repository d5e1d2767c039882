"""Alembic's scripts: one file a version, numbered in order."""
