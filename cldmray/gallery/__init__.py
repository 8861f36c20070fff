"""Galleries of identities: who is compared with whom, exact scores and ranks, and FAISS search.

- :mod:`~cldmray.gallery.protocols`: which references of an identity count for which probe.
- :mod:`~cldmray.gallery.scores`, :mod:`~cldmray.gallery.ranking`,
  :mod:`~cldmray.gallery.score_fusion`: exact scores and ranks by matrix products, for measures.
- :mod:`~cldmray.gallery.albums`: scores of a person's images together, whether given or linked.
- :mod:`~cldmray.gallery.index`: a gallery that is kept: build, save, open, search, shard. It rests
  on :mod:`~cldmray.gallery.vector_index`, the only module that imports FAISS.
- :mod:`~cldmray.gallery.near_duplicates`: which images are the same one again.
- :mod:`~cldmray.gallery.matches`: best matches of probes, and search by image.
"""
