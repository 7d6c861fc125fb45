"""A client like any other: it knows the server by HTTP alone."""
