"""Loss and error at every point of a path."""
