"""`make doctor`: can the chosen recipe run here? Versions, devices, disk, memory, network and credentials, each with advice."""
