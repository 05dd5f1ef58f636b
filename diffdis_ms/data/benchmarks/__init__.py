"""The test sets of the evaluation in their official files, their class names and prompts."""
