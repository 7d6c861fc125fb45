"""One module a dialect (bytes to a request, predictions to bytes), and what operators ask."""
