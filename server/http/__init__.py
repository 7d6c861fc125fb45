"""The wire, without a model: connections, bodies, request ids, errors, rendering."""
