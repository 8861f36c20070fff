"""cldmray: do anonymized face images still give the person away?"""

__version__ = "0.1.0"
