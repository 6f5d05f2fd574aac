"""What several stages share, one module for each noun."""
