"""A small shop: the service one would write on verdigris."""
