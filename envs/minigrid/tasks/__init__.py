"""The rules of MiniGrid's tasks, one family a file."""
