"""`make doctor`: whether a recipe can run here: versions, devices, disk, memory, network and credentials, each with advice."""
