"""A trained generator for programs other than poise: files in three formats, and model repositories.

`exporter.py` writes a file (`poise export`), `load.py` reads one back (`poise.load_generator`), and `repository.py`
writes a folder with a model card, which may be uploaded (`poise push`). Each format has a module of its own.
"""
