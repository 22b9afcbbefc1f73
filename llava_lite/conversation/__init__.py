"""What people say, as plain Python: messages, conversations, and how a template writes them down."""
