"""The group of user, customer and cohort segments."""
