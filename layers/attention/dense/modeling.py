

class DenseAttention(SoftmaxAttention):
    """Every key up to the query."""

    def visible(self, queries, keys):
        return keys <= queries


ATTENTION["dense"] = DenseAttention
