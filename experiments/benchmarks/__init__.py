"""What `python -m experiments.benchmark` measures, one file for each thing."""
