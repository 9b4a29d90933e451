"""What a person reads on the console."""
