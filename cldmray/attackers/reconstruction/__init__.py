"""The inversion attack: rebuild the photograph from the anonymized picture (DESIGN section 3).

The attacker can use the anonymizer and nothing else: photographs of other people go through it,
each picture that comes back costs one query, and from the pairs the way back is learnt. No weights
and no gradients of the anonymizer, and no originals of the evaluated people, enter.
"""
