"""What is asked for: configuration, grid, ablations, job groups, plan, progress.  Names and numbers, no tensors."""
