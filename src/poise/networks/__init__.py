"""The players' networks: one file per family, each with its two recipe entries and its two modules."""
