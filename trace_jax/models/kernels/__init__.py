"""Kernels: attention over packed rows for TPUs, and matrix products with one matrix for each group of rows."""
