"""Generators and their table."""
