"""Rows of weights at the speed of memory: from memory, mapped files, open files or chunks."""
