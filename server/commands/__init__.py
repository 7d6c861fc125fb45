"""The command line's commands, one module each. Heavy imports are inside the functions that need them."""
