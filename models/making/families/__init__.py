"""How the weights of each architecture are read: one module for architectures that are alike."""
