"""One module per section of the benchmark, each with `measure(bench)`."""
