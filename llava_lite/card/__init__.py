"""A model's card: README.md of its folder, written from what its training and its evaluations wrote down."""
