"""What a user does in Azure, besides the DVC remote: jobs on its computers."""
