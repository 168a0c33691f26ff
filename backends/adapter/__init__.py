"""The embedded reward model: a LoRA adapter on the policy's own weights."""
