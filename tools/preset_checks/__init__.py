"""The parts of tools/verify_presets.py: small random copies of models, the stages of a preset, the page."""
