"""`make package`: the int4 model in the form that another program or a hub takes."""
