"""A text becomes an encoding, encodings become predictions. Knows no event loop and no HTTP."""
