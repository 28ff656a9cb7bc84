"""What is done with a loaded pair beyond one explanation a token."""
