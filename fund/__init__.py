"""The front door of fundops."""
