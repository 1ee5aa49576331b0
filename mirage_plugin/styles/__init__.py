"""The style space and the presets."""
