"""Device meshes and sharding rules, and the processes of a multi-host run."""
