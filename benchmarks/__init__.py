"""Benchmarks, which are programs beside the package and no part of it.

Law: peers are measured side by side, in one run, each in a process of its own; what is
told is a price in the CPU time of that process, and a ratio. Nothing is asserted.
"""
