"""Fine-tuning methods: LoRA adapters, quantized bases, and checks of both."""
