"""Where people keep images of faces: one class a layout, and what these classes share.

A source lists its samples and reads their files; :class:`cldmray.faces.base.FaceSource` says how.
"""
