"""Item-based nearest neighbours: a product is recommended for its likeness to what the shopper has met.

Sarwar et al., "Item-Based Collaborative Filtering Recommendation Algorithms", WWW 2001; Deshpande and
Karypis, "Item-Based Top-N Recommendation Algorithms", ACM TOIS 22(1), 2004.
"""

import itertools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_matrix, diags_array, linalg

from clickstream_assets.catalogue import SIMILAR_PRODUCTS
from clickstream_assets.engine import DataFrame, Engine
from clickstream_assets.recommender.interactions import NotEnoughInteractions
from clickstream_assets.recommender.ranking import FloatArray, IntArray, Products, strength_matrix, top_n

NEIGHBOURS = 100


@dataclass(frozen=True)
class ItemKnnModel:
    """`similarity` is [products, products]: in each row the nearest neighbours of that product, by cosine."""

    products: Products
    similarity: csr_matrix
    algorithm: ClassVar[str] = "item_knn"

    def scores(self, strengths: csr_matrix) -> FloatArray:
        """Sum, per product, the strengths of those of its neighbours that a shopper met, times the cosine."""
        return (strengths @ self.similarity.T).toarray()

    def contributions(self, own: IntArray, strengths: FloatArray, picked: IntArray) -> FloatArray:
        """Give the terms of that sum."""
        return self.similarity[picked][:, own].toarray() * strengths


def similar_products(model: ItemKnnModel, n: int) -> pa.Table:
    """List up to n nearest neighbours of each product that has any, nearest first; ties by popularity.

    Returns:
        SIMILAR_PRODUCTS.
    """
    ids, similarity = model.products.ids, model.similarity
    lists = []
    for product, (start, end) in enumerate(itertools.pairwise(similarity.indptr)):
        nearest = start + top_n(similarity.data[start:end], n)
        lists.append((np.full(len(nearest), product), np.arange(1, len(nearest) + 1), nearest))
    products, ranks, entries = map(np.concatenate, zip(*lists, strict=True))
    return pa.table(
        [
            ids.take(pa.array(products)),
            ranks,
            ids.take(pa.array(similarity.indices[entries])),
            similarity.data[entries],
        ],
        schema=SIMILAR_PRODUCTS.arrow,
    )


def train(engine: Engine, interactions: DataFrame, products: Products) -> ItemKnnModel:
    """Find each product's nearest neighbours, by the cosine of their shoppers' strengths.

    On both engines this is done in this process: about 16 bytes an interaction, and 1.2 kB a product that
    stay with the model (120 MB for 100,000 products).

    Args:
        engine: where the interactions are.
        interactions: INTERACTIONS rows.
        products: the products of these interactions, from `rank_products` of them.

    Raises:
        NotEnoughInteractions: there are none.
    """
    from implicit.nearest_neighbours import ItemItemRecommender

    if len(products) == 0:
        raise NotEnoughInteractions("No shopper has met any product: there are no neighbours to find.")
    _, strengths = strength_matrix(engine, interactions, products)
    strengths = strengths.astype(np.float64)
    # The cosine is the product of columns of length 1; each column has an entry, so none is of length 0.
    lengths = linalg.norm(strengths, axis=0)
    # One more than wanted: a product is its own nearest neighbour.
    recommender = ItemItemRecommender(K=NEIGHBOURS + 1)
    recommender.fit(strengths @ diags_array(1 / lengths, format="csr"), show_progress=False)
    similarity = csr_matrix(recommender.similarity)
    similarity.setdiag(0)
    similarity.eliminate_zeros()
    similarity.sort_indices()
    return ItemKnnModel(products, similarity)
