"""Making versions: the writer's publishes, merges, rollbacks and forks. Only here are graphs built."""
