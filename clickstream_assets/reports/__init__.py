"""The daily report: made from the tables of a day, shown as JSON, text and HTML, and mailed. No Dagster in it."""
