"""Help desks: their APIs, read as they are, into macros and examples."""
