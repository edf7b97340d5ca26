"""The live hub: a small web server between the acquisition and those who look."""
