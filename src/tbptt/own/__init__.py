"""Optimizers, schedules and data sources of your own: a file each, beside its conf/GROUP/NAME.yaml (docs/using.md)."""
