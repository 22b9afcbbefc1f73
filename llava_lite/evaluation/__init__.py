"""Benchmarks: questions with correct answers, asked of any ChatModel, scored, and reported with their baselines."""
