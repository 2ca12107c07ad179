"""Data as a contract: pictures as uint8 in memory and [-1, 1] on the device, or points of the plane.

Read `source.py` first; every other file is one kind of data, with its recipe entry.
"""
