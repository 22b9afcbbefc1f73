"""The parts and how they are joined: vision tower, projector, language model, and the losses."""
