"""Pages for the shop's people, rendered from the answers of the public API and from nothing else."""
