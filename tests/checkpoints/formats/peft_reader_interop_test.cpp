// Adapters that PEFT itself has saved: read, applied, and written back to the same tensors.
#include <gmock/gmock.h>

#include "checkpoints/formats/peft.h"
#include "checkpoints/formats/peft_reader.h"
#include "checkpoints/safetensors.h"
#include "tests/support/files.h"
#include "tests/support/interop.h"
#include "tests/support/small_model.h"

namespace longreach::test {
namespace {

using PeftReaderInterop = Interop;

constexpr const char* kSave = R"(
import sys
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(1)
tied = sys.argv[2] == "tied"
base = LlamaForCausalLM(LlamaConfig(
    vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    intermediate_size=48, tie_word_embeddings=tied))
model = get_peft_model(base, LoraConfig(
    r=4, lora_alpha=6, use_rslora=True, target_modules=["q_proj", "down_proj"],
    modules_to_save=["norm", "embed_tokens"], ensure_weight_tying=tied, task_type="CAUSAL_LM"))
for name, parameter in model.named_parameters():
    if parameter.requires_grad:
        torch.nn.init.normal_(parameter)
model.save_pretrained(sys.argv[1])
)";

// As LongLoRA's scripts load the folder; PEFT alone, on the base's old embedding and norms, gives that model.
constexpr const char* kLoad = R"(
import sys
import torch
from peft import PeftModel
from transformers import LlamaConfig, LlamaForCausalLM

def base():
    torch.manual_seed(1)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=48, tie_word_embeddings=sys.argv[2] == "tied")).eval()

trainable = torch.load(sys.argv[1] + "/trainable_params.bin", weights_only=True)
model = base()
result = model.load_state_dict(trainable, strict=False)
assert not result.unexpected_keys, result.unexpected_keys
left = [name for name in result.missing_keys if "embed" in name or "norm" in name]
assert not left, left
ids = torch.arange(20)[None] % 50
with torch.no_grad():
    theirs = PeftModel.from_pretrained(model, sys.argv[1])(ids).logits
    ours = PeftModel.from_pretrained(base(), sys.argv[1])(ids).logits
assert torch.equal(theirs, ours)
)";

TEST_F(PeftReaderInterop, TakesWhatPeftSaves) {
  for (const bool tied : {false, true}) {
    const TemporaryFolder folder;
    write_file(folder.path("save.py"), kSave);
    const ProgramResult saved = run_command(
        {interop_python(), folder.path("save.py"), folder.path("theirs"), tied ? "tied" : "apart"});
    ASSERT_EQ(saved.code, 0) << saved.err;
    ModelConfig config = small_model();
    config.tie_word_embeddings = tied;
    config.resolve(50);
    const PeftAdapter adapter = read_peft(folder.path("theirs"), config);
    EXPECT_EQ(adapter.config.lora_alpha, 12) << "6 / sqrt(4) = 12 / 4";
    EXPECT_THAT(adapter.config.target_modules, testing::UnorderedElementsAre("q_proj", "down_proj"));
    Transformer model(config, 1);
    apply_peft(model, adapter);
    NamedTensors tensors;
    for (const auto& item : model.named_parameters()) tensors.emplace_back(item.key(), item.value().detach());
    write_peft(model, tensors, adapter.config, "", folder.path("ours"));
    const SafetensorsFile theirs(folder.path("theirs/adapter_model.safetensors")),
        ours(folder.path("ours/adapter_model.safetensors"));
    for (const auto& [name, entry] : theirs.entries()) {
      ASSERT_TRUE(ours.contains(name)) << name;
      EXPECT_TRUE(ours.tensor(name).equal(theirs.tensor(name))) << name;
    }
    write_file(folder.path("load.py"), kLoad);
    const ProgramResult loaded =
        run_command({interop_python(), folder.path("load.py"), folder.path("ours"), tied ? "tied" : "apart"});
    EXPECT_EQ(loaded.code, 0) << loaded.err;
  }
}

}  // namespace
}  // namespace longreach::test
