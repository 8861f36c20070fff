"""The reconstruction (inversion) attack: originals are reconstructed from anonymized images.

The attacker can query the anonymizer and nothing else. Images of other people go through it, and
each image that comes back costs one query. A reconstruction model learns from these pairs. No
weights and no gradients of the anonymizer, and no originals of evaluated people, enter.
"""
