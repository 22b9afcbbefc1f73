"""Conversations in, text out: the one interface through which evaluation, chat and serving know a model."""
