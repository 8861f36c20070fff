"""Overrides that only an audit heeds, with the error that studies give."""

ONLY_AUDIT = [
    (["gallery.distractors=attacker"], "gallery.distractors: only cldmray audit takes it"),
    (
        ["+faces@gallery.faces=synthetic", "gallery.faces.name=others"],
        "gallery.faces: only cldmray audit takes it",
    ),
    (
        ["+faces@gallery.references=synthetic", "gallery.references.name=others"],
        "gallery.references: only cldmray audit takes it",
    ),
    (["audit.fail_on=leak"], "audit.fail_on: only cldmray audit takes it"),
]
