"""Machine checks of all presets on shrunken random copies of their models; see tools/verify_presets.py."""
