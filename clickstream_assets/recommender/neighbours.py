"""Item-based nearest neighbours: a product is recommended for its likeness to what the shopper has met.

Sarwar et al., "Item-Based Collaborative Filtering Recommendation Algorithms", WWW 2001; Deshpande and
Karypis, "Item-Based Top-N Recommendation Algorithms", ACM TOIS 22(1), 2004.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_matrix, diags_array, linalg

from clickstream_assets.catalogue import LONGS, RELATED_PRODUCTS
from clickstream_assets.recommender.interactions import NotEnoughInteractions
from clickstream_assets.recommender.ranking import NO_AGEING, Ageing, FloatArray, IntArray, Products

NEIGHBOURS = 100


@dataclass(frozen=True)
class ItemKnnModel:
    """`similarity` is [products, products]: in each row the nearest neighbours of that product, by cosine."""

    products: Products
    similarity: csr_matrix
    ageing: Ageing = NO_AGEING
    algorithm: str = "item_knn"

    def scores(self, strengths: csr_matrix) -> FloatArray:
        """Sum, per product, the strengths of those of its neighbours that a shopper met, times the cosine."""
        return (strengths @ self.similarity.T).astype(np.float32).toarray()

    def contributions(self, own: IntArray, strengths: FloatArray, picked: IntArray) -> FloatArray:
        """Give the terms of that sum."""
        shape = (*picked.shape, own.shape[1])
        pairs = np.broadcast_to(picked[:, :, None], shape), np.broadcast_to(own[:, None, :], shape)
        alike = self.similarity[pairs[0].ravel(), pairs[1].ravel()]
        return np.asarray(alike).reshape(shape) * strengths[:, None, :]


def similar_products(model: ItemKnnModel, n: int) -> pa.Table:
    """List up to n nearest neighbours of each product that has any, nearest first; ties by popularity.

    Returns:
        RELATED_PRODUCTS rows of the relation `item_to_item`.
    """
    ids, similarity = model.products.ids, model.similarity
    lengths = np.diff(similarity.indptr)
    product = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort((similarity.indices, -similarity.data, product))
    kept = order[np.arange(len(order)) - similarity.indptr[product] < n]
    has = np.flatnonzero(lengths)
    offsets = pa.array(np.concatenate(([0], np.cumsum(np.minimum(lengths[has], n)))).astype(np.int32))
    return pa.table(
        {
            "relation": pa.repeat("item_to_item", len(has)),
            "product_id": ids.take(pa.array(has)),
            "related_ids": pa.ListArray.from_arrays(offsets, ids.take(pa.array(similarity.indices[kept]))),
            "scores": pa.ListArray.from_arrays(offsets, pa.array(similarity.data[kept].round(6))),
            "orders": pa.nulls(len(has), pa.int64()),
            "together": pa.nulls(len(has), LONGS),
        }
    ).cast(RELATED_PRODUCTS.arrow)


def train(strengths: csr_matrix, products: Products) -> ItemKnnModel:
    """Find each product's nearest neighbours, by the cosine of their shoppers' strengths.

    On both engines this is done in this process: about 16 bytes an interaction, and 1.2 kB a product that
    stay with the model (120 MB for 100,000 products).

    Args:
        strengths: [users, products].
        products: the products of these.

    Raises:
        NotEnoughInteractions: there are none.
    """
    from implicit.nearest_neighbours import ItemItemRecommender

    if not strengths.nnz:
        raise NotEnoughInteractions("No shopper has met any product: there are no neighbours to find.")
    strengths = strengths.astype(np.float64)
    # The cosine is the product of columns of length 1; a product of the catalogue that nobody met has length 0.
    lengths = linalg.norm(strengths, axis=0)
    lengths[lengths == 0] = 1
    # One more than wanted: a product is its own nearest neighbour.
    recommender = ItemItemRecommender(K=NEIGHBOURS + 1)
    recommender.fit(strengths @ diags_array(1 / lengths, format="csr"), show_progress=False)
    similarity = csr_matrix(recommender.similarity)
    similarity.setdiag(0)
    similarity.eliminate_zeros()
    similarity.sort_indices()
    return ItemKnnModel(products, similarity)
