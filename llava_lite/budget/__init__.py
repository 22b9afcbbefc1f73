"""What a run will need, before any GPU is rented: memory, hours, energy and money, from its configuration alone."""
