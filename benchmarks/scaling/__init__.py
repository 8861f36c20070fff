"""What ``scale.py`` is made of: the stages that are measured, their memory, the table."""
