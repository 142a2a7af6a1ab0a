"""The peer's end of `longreach bench`: one JSON object a line in and out, arrays as raw float32 files.

A peer script calls serve(make). make(problem) returns (function, same_function): function(q, k, v) -> o over tensors
laid out as `problem.layout` says; same_function is False when it computes dense causal attention in the place of the
case's own function. make raises Unsupported when it cannot do the case.

Requests: prepare (sizes, dtype, pass, function, files), result (writes o, dq, dk, dv), run (repeats -> wall, cpu).
"""
import json
import os
import sys
import time

# What a library prints must not land between the answers.
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)

try:
    import torch
except ImportError as error:
    print(json.dumps({"error": f"torch cannot be imported in this environment: {error}"}), file=answers)
    sys.exit(1)


class Unsupported(Exception):
    """The peer cannot compute this case."""


class Problem:
    """Inputs on the peer's side. layout: "BHTD" (contiguous, heads before tokens) or "BTHD"."""

    layout = "BHTD"

    def __init__(self, request):
        self.function = request["function"]
        self.backward = request["pass"] == "both"
        self.files = request["files"]
        self.batch, self.tokens = request["batch"], request["tokens"]
        self.heads, self.kv_heads, self.head_dim = request["heads"], request["kv_heads"], request["head_dim"]
        self.dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[request["dtype"]]

    def shape(self, name):
        heads = self.kv_heads if name in ("k", "v", "dk", "dv") else self.heads
        return (self.batch, self.tokens, heads, self.head_dim)

    def swap(self, x):
        return x.transpose(1, 2).contiguous() if self.layout == "BHTD" else x.contiguous()

    def read(self, name):
        shape = self.shape(name)
        size = shape[0] * shape[1] * shape[2] * shape[3]
        flat = torch.from_file(self.files[name], shared=False, size=size, dtype=torch.float32)
        # A copy of our own: the mapping must not be paged in while the clock runs.
        return self.swap(flat.view(shape).to(self.dtype)).clone()

    def write(self, name, x):
        values = self.swap(x.detach()).float()
        target = torch.from_file(self.files[name], shared=True, size=values.numel(), dtype=torch.float32)
        target.copy_(values.reshape(-1))


class Peer:
    def __init__(self, problem, function):
        self.problem, self.function = problem, function
        self.inputs = [problem.read(name).requires_grad_(problem.backward) for name in "qkv"]
        self.grad_o = problem.read("grad_o")

    def once(self):
        for x in self.inputs:
            x.grad = None
        with torch.set_grad_enabled(self.problem.backward):
            o = self.function(*self.inputs)
            if self.problem.backward:
                o.backward(self.grad_o)
        return o

    def result(self):
        self.problem.write("o", self.once())
        if self.problem.backward:
            for name, x in zip(("dq", "dk", "dv"), self.inputs):
                self.problem.write(name, x.grad)
        return {}



def timed(work, repeats):
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        work()
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def serve_requests(answer):
    """Answers every line of standard input with answer(request)."""
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except Exception as error:  # whatever it is, the other end must hear of it
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=answers)


def serve(make, layout="BHTD"):
    peer = None

    def answer(request):
        nonlocal peer
        if request["op"] == "prepare":
            torch.set_num_threads(request["threads"])
            problem = Problem(request)
            problem.layout = layout
            function, same_function = make(problem)
            peer = Peer(problem, function)
            return {"same_function": same_function}
        if request["op"] == "result":
            return peer.result()
        return timed(peer.once, request["repeats"])

    serve_requests(answer)
