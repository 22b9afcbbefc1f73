"""Records on disk to batches of tensors: which samples form a step, how they are packed, nothing lost on the way."""
