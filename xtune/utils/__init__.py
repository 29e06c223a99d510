"""Small helpers without knowledge of training: devices, files, quiet imports, model structure."""
