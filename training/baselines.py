"""What a model must beat to be worth its place: quick methods without it, on the same rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from training.evaluation import Judged, judge
from training.examples import Example

# What scikit-learn takes for one.
_WORD = re.compile(r"\b\w\w+\b")
Baseline = Callable[[Sequence[Example], Sequence[Example]], Judged]


def tfidf(fitted: Sequence[Example], test: Sequence[Example]) -> Judged:
    """A linear support vector machine (one against the rest) on TF-IDF of words, pairs and 2- to 5-grams of characters.

    What a good engineer tries first, with scikit-learn's settings as they are. About 0.4 s for 1,000 short rows.

    Args:
        fitted: rows to fit on, of at least two macros; those out of scope are left out.
        test: rows to judge.

    Returns:
        What it says of the test rows. It never abstains, and its confidence is no probability. Of rows without a word it
        can learn nothing, nor of one macro's alone: then what `most_frequent` says.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.svm import LinearSVC

    rows = [row for row in fitted if row.macro_id is not None]
    if len({row.macro_id for row in rows}) < 2 or not any(_WORD.search(row.text) for row in rows):
        return most_frequent(fitted, test)
    model = make_pipeline(
        make_union(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
            TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
        ),
        LinearSVC(random_state=0),
    )
    model.fit([row.text for row in rows], [row.macro_id for row in rows])
    macros = [str(macro) for macro in model.classes_]
    margins = model.decision_function([row.text for row in test]) if test else np.zeros((0, len(macros)))
    # Of two macros there is one margin, the second one's.
    scores = np.stack([-margins, margins], axis=1) if margins.ndim == 1 else margins
    return judge(scores.astype(np.float32), [row.macro_id for row in test], macros, threshold=-np.inf)


def most_frequent(fitted: Sequence[Example], test: Sequence[Example]) -> Judged:
    """The macros that are applied most, whatever the ticket says. Arguments and result as for `tfidf`."""
    counts = Counter(row.macro_id for row in fitted if row.macro_id is not None)
    macros = sorted(counts)
    scores = np.tile(np.array([counts[macro] for macro in macros], np.float64), (len(test), 1))
    return judge(scores.astype(np.float32), [row.macro_id for row in test], macros, threshold=-np.inf)


BASELINES: dict[str, Baseline] = {"tfidf": tfidf, "most_frequent": most_frequent}
