"""Chat with any ChatModel in a terminal, or through a pipe."""
