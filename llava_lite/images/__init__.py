"""Pictures in, tiles of numbers out: opening them safely, and the exact pixels the vision tower was trained on."""
