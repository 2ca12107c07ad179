"""One step of training, in memory: read `step.py` first; nothing here touches a disk."""
