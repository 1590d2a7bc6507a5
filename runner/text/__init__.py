"""Texts from outside and of secret content, made fit to be shown."""
