"""Model selection on cached features: what a setting gains, measured by cross-validation in seconds."""
