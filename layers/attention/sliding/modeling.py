

class SlidingAttention(SoftmaxAttention):
    """The latest keys, and the first ones of the text."""

    def __init__(self, config, options, layer):
        super().__init__(config, options, layer)
        self.window, self.sinks = options["window"], options["sinks"]

    def visible(self, queries, keys):
        return (keys <= queries) & ((keys > queries - self.window) | (keys < self.sinks))


ATTENTION["sliding"] = SlidingAttention
