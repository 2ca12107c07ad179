"""Detection of training failures from logged metrics, live or in the logs of other trainers. Does not import torch."""
