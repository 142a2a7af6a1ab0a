

class DenseAttention(SoftmaxAttention):
    """Every key up to the query. With an output gate, the heads' outputs times sigmoid of a projection of x."""

    def __init__(self, config, options, layer):
        super().__init__(config, options, layer)
        inner = self.heads * self.head_dim
        self.o_gate = nn.Linear(config.hidden_size, inner, bias=False) if options.get("output_gate") else None

    def visible(self, queries, keys):
        return keys <= queries

    def forward(self, x, first, state):
        o = self.attended(x, first, state)
        return self.merge(o if self.o_gate is None else o * torch.sigmoid(self.o_gate(x)).view(o.shape))


ATTENTION["dense"] = DenseAttention
