"""A bot that writes haiku. It has its own way of reading streams, as many programs do."""
