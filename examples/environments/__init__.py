"""Environments for capabilities of τ²-bench airline and retail, written as a designer model writes them.

Each module is whole: it needs the kit alone, so that it runs in the sandbox as well.
"""
