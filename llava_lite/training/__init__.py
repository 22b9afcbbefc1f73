"""The loop and what drives it. It gets steps of batches and a module that returns a Loss, nothing more."""
