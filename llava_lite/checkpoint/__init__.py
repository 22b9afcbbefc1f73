"""A checkpoint is a folder that says in its config.json what it is. Nothing depends on a folder's name."""
