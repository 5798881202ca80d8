"""What the generated JavaScript client is made of: data files, no code."""
