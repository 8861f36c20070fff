"""Figures of the pages: vector drawings with text that can be selected, and sheets of images."""
