"""The topic of click events: reading, sending, and what clients say when they are not let in."""
