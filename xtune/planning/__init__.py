"""What a run needs, told before its weights are loaded: `xtune plan`."""
