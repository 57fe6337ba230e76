"""What pages of a shop have to show, by the public API and by plain SQL."""
