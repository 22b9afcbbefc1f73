"""`llava-lite inspect`: what the model sees of a sample, and what it learns."""
