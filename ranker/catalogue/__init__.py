"""The models that the ranker knows: what they are, what they can do, and what of it is true."""
