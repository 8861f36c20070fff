"""The recipes of the laboratory, by name. A recipe that changes one thing starts from ``as_is``."""

from dataclasses import replace

from attacking.laboratory import Recipe, Student, distilled
from attacking.regression import Regression
from cldmray.attackers.condition_match import ConditionMatch
from cldmray.attackers.contrastive import AdaptiveContrastive
from cldmray.attackers.distilled import AdaptiveCondition
from cldmray.attackers.nn.encoder import SmallEncoder
from cldmray.attackers.nn.training import TrainingConfig
from cldmray.attackers.pretrained import Pretrained

AS_IS = Student(distilled())
FACE_LINK_GEN = Student(
    distilled(0, 500, learning_rate=1e-5, weight_decay=2e-2, augment=0.0, temperature=1e3),
    samples=4,
    target="source",
)
LINEAR = Student(Regression())
PAPER = Student(
    AdaptiveContrastive(SmallEncoder(width=24), TrainingConfig(max_steps=400, batch_size=128))
)
ON_EDGES = Student(AdaptiveCondition(AS_IS.attacker.encoder, AS_IS.attacker.training))
PLAIN = Recipe("the product's `adaptive_distilled`, small preset: 60 steps of 32", (AS_IS,))


def seeds(student: Student, count: int) -> tuple[Student, ...]:
    """The student trained with so many seeds."""
    return tuple(
        replace(student, attacker=student.attacker.with_seed(100 * seed)) for seed in range(count)
    )


def trained(about: str, *students: Student) -> Recipe:
    """A recipe that trains otherwise and scores as ``as_is``."""
    return Recipe(about, students)


RECIPES: dict[str, Recipe] = {
    "pretrained": Recipe("the public recognizer as it is", beside=(Pretrained(),)),
    "condition_match": Recipe("edges laid on edges", beside=(ConditionMatch(),)),
    "public_mean": Recipe("`pretrained`, mean of the references", beside=(Pretrained(),),
                          template="mean"),
    "public_both": Recipe("`pretrained`, best reference and mean", beside=(Pretrained(),),
                          template="both"),
    "public_release": Recipe("`pretrained`, z-norm by the release", beside=(Pretrained(),),
                             cohort="release"),
    "public_linked": Recipe("`pretrained`, each image linked with four", beside=(Pretrained(),),
                            n_links=4),
    "untrained": Recipe("`pretrained` and `condition_match` added",
                        beside=(Pretrained(), ConditionMatch())),
    "untrained_both": Recipe("both added, both templates",
                             beside=(Pretrained(), ConditionMatch()), template="both"),
    "untrained_release_both": Recipe("both added, both templates, z-norm by the release",
                                     beside=(Pretrained(), ConditionMatch()), template="both",
                                     cohort="release"),
    "paper": trained("the paper's contrastive recipe, `adaptive_contrastive`", PAPER),
    "as_is": PLAIN,
    # The same student, scored otherwise.
    "mirror": replace(PLAIN, about="references mirrored as well", mirrored=True),
    "mean_template": replace(PLAIN, about="mean of the references", template="mean"),
    "both_templates": replace(PLAIN, about="best reference and mean, summed", template="both"),
    "cohort": replace(PLAIN, about="z-norm by attacker people's images", cohort="attacker"),
    "release": replace(PLAIN, about="z-norm by all released images", cohort="release"),
    "release_both": replace(
        PLAIN, about="z-norm by the release, both templates", cohort="release", template="both"
    ),
    "fused": replace(
        PLAIN, about="`pretrained` and `condition_match` added",
        beside=(Pretrained(), ConditionMatch()),
    ),
    "fused_release_both": replace(
        PLAIN, about="all three added, z-norm by the release, both templates",
        beside=(Pretrained(), ConditionMatch()), cohort="release", template="both",
    ),
    # Other trainings.
    "samples_2": trained("two samples of each original", replace(AS_IS, samples=2)),
    "samples_4": trained("four samples of each original", replace(AS_IS, samples=4)),
    "source_target": trained(
        "the very original's embedding as target", replace(AS_IS, target="source")
    ),
    "identity_target": trained(
        "the person's mean embedding as target", replace(AS_IS, target="identity")
    ),
    "mild_views": trained("views at 0.3 of the strength", Student(distilled(augment=0.3))),
    "mirror_views": trained("views that only mirror", Student(distilled(augment=0.0))),
    "cosine_only": trained("no contrast, cosine alone", Student(distilled(temperature=1e3))),
    "unfrozen": trained("no layer frozen, 1e-4", Student(distilled(0, learning_rate=1e-4))),
    "large": trained(
        "the large preset: 150 steps of 64",
        Student(distilled(steps=150, batch_size=64, warmup_steps=40)),
    ),
    "longer": trained(
        "500 steps of 64, four samples",
        Student(distilled(steps=500, batch_size=64, warmup_steps=40), samples=4),
    ),
    "gentle": trained(
        "unfrozen, 300 steps of 64 at 1e-4, mild views, four samples",
        Student(distilled(0, 300, batch_size=64, learning_rate=1e-4, augment=0.3), samples=4),
    ),
    "face_link_gen": trained(
        "FaceLinkGen's student: unfrozen, 500 steps at 1e-5, mirroring only, no contrast, the very "
        "original as target",
        FACE_LINK_GEN,
    ),
    "students_2": trained("two students averaged", *seeds(AS_IS, 2)),
    "students_3": trained("three students averaged", *seeds(AS_IS, 3)),
    "on_edges": trained("reads the edges of the anonymized images", ON_EDGES),
    "image_and_edges": trained("students on image and on edges averaged", AS_IS, ON_EDGES),
    # Ridge regression from gradient histograms to the teacher's embeddings.
    "linear": trained("ridge regression from gradient histograms", LINEAR),
    "linear_weak": trained("ridge 1", Student(Regression(ridge=1.0))),
    "linear_strong": trained("ridge 100", Student(Regression(ridge=100.0))),
    "linear_source": trained("ridge 10, the very original", replace(LINEAR, target="source")),
    "linear_samples_2": trained("ridge 10, two samples", replace(LINEAR, samples=2)),
    "linear_fine": trained("ridge 10, 16x16 cells", Student(Regression(side=16), samples=2)),
    "linear_release_both": replace(
        trained("ridge 10, two samples, z-norm by the release, both templates",
                replace(LINEAR, samples=2)),
        cohort="release", template="both",
    ),
    "linear_fused": replace(
        trained("the same and `pretrained`, `condition_match`", replace(LINEAR, samples=2)),
        cohort="release", template="both", beside=(Pretrained(), ConditionMatch()),
    ),
    "linear_and_student": replace(
        trained("the same and the student", replace(LINEAR, samples=2), AS_IS),
        cohort="release", template="both", beside=(Pretrained(), ConditionMatch()),
    ),
    "linear_linked_1": replace(
        trained("ridge 10, two samples, each image linked with one", replace(LINEAR, samples=2)),
        n_links=1,
    ),
    "linear_linked_4": replace(
        trained("ridge 10, two samples, each image linked with four", replace(LINEAR, samples=2)),
        n_links=4,
    ),
    "linear_permuted": trained(
        "control: ridge on permuted people", replace(LINEAR, permuted=True, target="source")
    ),
    # Controls, which must find chance.
    "permuted": trained("control: learns from permuted people", replace(AS_IS, permuted=True)),
    "permuted_paper": trained(
        "control: the paper's recipe on permuted people", replace(PAPER, permuted=True)
    ),
}  # fmt: skip
