"""The inversion attack: rebuild the image from the anonymized image (docs/threat_model.md).

The attacker can use the anonymizer and nothing else: images of other people go through it,
each image that comes back costs one query, and from the pairs the reconstruction is learnt. No weights
and no gradients of the anonymizer, and no originals of the evaluated people, enter.
"""
