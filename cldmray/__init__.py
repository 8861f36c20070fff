"""cldmray: do anonymized face pictures still give the person away?"""

__version__ = "0.1.0"
