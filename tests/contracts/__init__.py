"""Exams that every part of a family sits, and the tiny games (`tiny.py`) they are held in."""
