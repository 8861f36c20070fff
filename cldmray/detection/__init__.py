"""Face detection and alignment: YuNet's boxes and five points, arrays in and arrays out."""
