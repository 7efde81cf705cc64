"""How fast mli_check is against what else computes the same curves. Not part of what a plain `pytest` measures.

    pytest tests/benchmarks --benchmark-enable -q

measures at full size (ten to fifteen minutes on two cores that do nothing else) and ends with a table of ratios:
medians over rounds in which the competitors take turns, so that a machine that slows down slows all of them. A bar that
is missed fails its test. `--benchmark-json=FILE` keeps the table, in each benchmark's `extra_info`;
MLI_CHECK_BENCH_ROUNDS sets the rounds (default 3). Without `--benchmark-enable` the same code runs once at tiny sizes,
and only its results are checked.
loss-landscapes, one of the competitors, comes with `pip install -e '.[bench]'`.
"""
