"""The group of daily tables and the report."""
