"""Test sets for the evaluation, read from their official files, with their class names and prompts."""
