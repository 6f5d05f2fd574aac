"""An Olive configuration as an experiment of this project, with an account of each of its fields."""
