"""The live page: a read-only server for the runs, studies and ladders below a directory. It never imports torch."""
