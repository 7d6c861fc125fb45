"""The `supportbot` command line: one module a command. Heavy imports are inside the functions that need them."""
