"""A world small enough to learn on two CPU cores: coloured shapes, and the parts of a model to be trained on them."""
