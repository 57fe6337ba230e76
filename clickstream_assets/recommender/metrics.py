"""Metrics of ranked lists: the same for the evaluation that decides and the search for parameters."""

import numpy as np
from scipy.sparse import csr_matrix

from clickstream_assets.recommender.ranking import FloatArray, IntArray

METRICS = ("ndcg", "map", "precision", "recall")


def hits_of(picked: IntArray, relevant: csr_matrix) -> tuple[np.ndarray, IntArray]:
    """Say which picks are relevant.

    Args:
        picked: [lists, n], products, best first; -1 for none.
        relevant: [lists, products], with an entry where a product is to be found; at least one in each row.

    Returns:
        [lists, n], whether each pick is relevant, and [lists], how many there are to find.
    """
    # A pair of list and product is one number.
    first = np.arange(relevant.shape[0])[:, None] * relevant.shape[1]
    counts = np.diff(relevant.indptr)
    wanted = np.repeat(first.ravel(), counts) + relevant.indices
    return np.isin(picked + first, wanted) & (picked >= 0), counts


def rank_metrics(hits: np.ndarray, relevant: np.ndarray | int, k: int) -> dict[str, FloatArray]:
    """Judge lists.

    - ndcg: sum of 1 / log2(1 + rank) over the hits, divided by the same sum of an ideal list, whose first
      min(k, relevant) ranks are hits (Järvelin and Kekäläinen, ACM TOIS 20(4), 2002; binary gains).
    - map: average precision, the sum of precision@rank over the hits, divided by the number of relevant
      products (Manning, Raghavan and Schütze, "Introduction to Information Retrieval", 2008, section 8.4).
    - precision: hits / k, also where the list is shorter than k.
    - recall: hits / relevant.

    Args:
        hits: [..., ranks], per rank of each list, best first, whether it is relevant; at most k.
        relevant: [...], how many products there were to find; at least 1.
        k: the length asked for.

    Returns:
        [...] by metric.
    """
    ranks = np.arange(1, hits.shape[-1] + 1)
    found = hits.sum(axis=-1)
    ideal = np.concatenate(([0.0], np.cumsum(1 / np.log2(1 + np.arange(1, k + 1)))))
    precisions = np.cumsum(hits, axis=-1) / ranks
    return {
        "ndcg": (hits / np.log2(1 + ranks)).sum(axis=-1) / ideal[np.minimum(k, relevant)],
        "map": (hits * precisions).sum(axis=-1) / relevant,
        "precision": found / k,
        "recall": found / relevant,
    }
