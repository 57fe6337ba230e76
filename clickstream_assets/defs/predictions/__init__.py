"""The group of what is predicted of persons and sessions."""
