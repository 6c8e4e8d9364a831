"""Thin: parse, call one workflow, show. Nothing heavy is imported before a command runs."""
