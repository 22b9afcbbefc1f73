"""Records on disk to batches of tensors: which samples form a step, how they are packed, and nothing lost on the way."""
