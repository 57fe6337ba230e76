"""The group of what is published to PostgreSQL."""
