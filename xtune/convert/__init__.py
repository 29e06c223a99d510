"""What comes out: Hugging Face folders from checkpoints, merged models, smaller shards."""
