"""Instructions that a program can check (IFEval, arXiv 2311.07911), in an implementation of ours.

Each check is a function of the response, and of arguments by name as the benchmark's file has them.
"""
