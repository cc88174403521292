"""What runs how often and at the same time: tasks, blocking calls, sessions held over something else."""
