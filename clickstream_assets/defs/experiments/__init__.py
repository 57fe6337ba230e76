"""The group of experiments: who was shown what, and what came of it."""
