"""Commands for a user whose results, rows, models or machines are in Azure."""
