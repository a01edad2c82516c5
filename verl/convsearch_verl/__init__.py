"""What this project adds to verl 0.9 from outside: a reward manager, a sampler that stops on failed
rollouts, a CPU platform and the `hf_cpu` rollout. `entry` is the plugin that verl loads."""
