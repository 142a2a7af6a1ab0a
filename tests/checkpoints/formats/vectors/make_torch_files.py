"""The .pth files of this folder: python3 make_torch_files.py FOLDER, with PyTorch 2.11."""
import os
import sys

import torch

folder = sys.argv[1]


def save(name, value, **options):
    torch.save(value, os.path.join(folder, name), **options)


base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
module = torch.nn.Module()
module.register_parameter("weight", torch.nn.Parameter(base))
module.tied = module.weight
save("state_dict.pth", module.state_dict())  # an OrderedDict with _metadata, one storage twice
save("views.pth", {"transposed": base.t(), "slice": base[1:3, 2:5], "column": base[:, 1], "one": base[2, 3]})
dtypes = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
          torch.uint8, torch.bool)
save("dtypes.pth", {str(dtype)[6:]: torch.tensor([0, 1, 0, 1, 1]).to(dtype) for dtype in dtypes})
save("parameters.pth", {"a": torch.nn.Parameter(base), "empty": torch.empty(0, 3)}, pickle_protocol=4)
save("before_1_6.pth", {"a": base}, _use_new_zipfile_serialization=False)
save("expanded.pth", {"a": torch.ones(1).expand(1000)})
save("optimizer.pth", {"model": {"a": base}, "step": 3})
save("whole_module.pth", torch.nn.Linear(2, 2))
torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), os.path.join(folder, "script.pth"))
