"""How well a classifier does on a labelled folder: rates, counts, the picture of its confusions.

Pure: nothing here calls a server.
"""
