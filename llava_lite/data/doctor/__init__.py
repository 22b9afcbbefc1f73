"""The pre-flight report of visual instruction data: every fault found, named and listed before a run starts."""
