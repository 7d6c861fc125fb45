"""HTTP in, HTTP out: settings, routes, errors, the life of the process."""
