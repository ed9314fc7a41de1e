"""Benchmarks: each compares by ratio with a named peer in the same run; exit code 1 says that a bound is missed."""
