// The keys of SeerAttention: help, what is allowed, and the rules that span them.
#include "core/error.h"
#include "layers/attention/seer/gate.h"
#include "layers/attention/seer/seer.h"

namespace longreach {
namespace {

std::vector<std::string> pool_names(char letter) {
  std::vector<std::string> names;
  for (const char* pools : {"max", "min", "avg", "maxmin", "maxavg", "minavg", "maxminavg"})
    names.push_back(letter + std::string(pools));
  return names;
}

void gate_fields(SeerConfig& c, FieldVisitor& visit) {
  std::vector<std::string> q_poolings = pool_names('Q');
  q_poolings.insert(q_poolings.begin(), "auto");
  for (const char* name : {"Qproj", "Qavgproj", "Qorig"}) q_poolings.emplace_back(name);
  visit.field("block_size", c.block_size,
              {.help = "tokens a block: 16, 32, 64 or 128", .allowed = between(16, 128)});
  visit.field("gate_hidden", c.gate_hidden,
              {.help = "features of the gate's queries and keys (authors: 128)", .allowed = between(2, 256)});
  visit.field(
      "q_pooling", c.q_pooling,
      {.help = "prefill: pools over a block of queries, in the order max, min, avg; decode: how a group of "
               "heads becomes one (Qproj, Qavgproj, Qavg, Qorig); auto: Qavg, Qproj",
       .allowed = one_of(std::move(q_poolings))});
  visit.field(
      "k_pooling", c.k_pooling,
      {.help = "pools over a block of keys, in the order max, min, avg", .allowed = one_of(pool_names('K'))});
  visit.field(
      "layout", c.layout,
      {.help = "prefill: weights on pooled keys alone (single) or on queries too (double, the authors' "
               "force_double); auto: single where one query pool and gate_hidden = head_dim allow it",
       .allowed = one_of({"auto", "single", "double"})});
  visit.field("gate_qk_norm", c.gate_qk_norm,
              {.help = "decode form: RMSNorm of the gate's queries and keys"});
  visit.field("gate_rope", c.gate_rope, {.help = "rotary embedding of the gate's queries and keys"});
  visit.field(
      "block_position", c.block_position,
      {.help = "decode form: a block's key stands at its first token, as in the authors' training, or its "
               "last, as in their decoding",
       .allowed = one_of({"start", "end"})});
}

void selection_fields(SeerConfig& c, FieldVisitor& visit) {
  const int64_t most = int64_t{1} << 30;
  visit.field("selection", c.selection,
              {.help = "which blocks a row keeps; density (the authors' nz_ratio): prefill form only",
               .allowed = one_of({"token_budget", "top_k", "threshold", "density"})});
  visit.field(
      "token_budget", c.token_budget,
      {.help = "tokens of chosen blocks, a multiple of block_size; the decode form reads its own block "
               "besides",
       .allowed = between(1, most)});
  visit.field(
      "top_k", c.top_k,
      {.help = "chosen blocks; the decode form reads its own block besides", .allowed = between(1, most)});
  visit.field(
      "threshold", c.threshold,
      {.help = "keep blocks whose share in the gate's softmax is larger", .allowed = real_between(0, 1)});
  visit.field("density", c.density,
              {.help = "share of the causal map that is kept", .allowed = RealRange{0, 1, true}});
  visit.field("first_blocks", c.first_blocks,
              {.help = "first blocks of the document that are always read", .allowed = between(0, most)});
  visit.field(
      "force_diagonal", c.force_diagonal,
      {.help = "prefill form: a row always reads its own block (the authors: false); the decode form always "
               "does"});
  visit.field("last_block_dense", c.last_block_dense,
              {.help = "prefill form: the last two rows of blocks read everything"});
}

bool power_between_16_and_128(int64_t size) { return size == 16 || size == 32 || size == 64 || size == 128; }

}  // namespace

void SeerConfig::fields(FieldVisitor& visit) {
  visit.field(
      "mode", mode,
      {.help = "sparse: attend to the gate's blocks; distill: dense attention that teaches the gate while "
               "training, sparse otherwise; dense: the gate is not used",
       .allowed = one_of({"sparse", "distill", "dense"})});
  visit.field(
      "form", form,
      {.help = "decode: each query scores earlier blocks (SeerAttention-R; strictly causal); prefill: a "
               "block of queries shares its choice, which sees the block's later queries, and decoding "
               "is dense",
       .allowed = one_of({"decode", "prefill"})});
  gate_fields(*this, visit);
  selection_fields(*this, visit);
  visit.field("gate_loss", gate_loss,
              {.help = "sparse: while training, the gate learns the attention among the blocks it chose"});
  visit.field(
      "loss_slice_ratio", loss_slice_ratio,
      {.help = "decode form: first share of each document left out of the gate's loss (prefill: a quarter)",
       .allowed = real_between(0, 0.999)});
  visit.field("rope", rope, {.help = "rotary embedding on q and k of the attention"});
  if (!power_between_16_and_128(block_size)) visit.reject("block_size", "expected 16, 32, 64 or 128");
}

void SeerConfig::validate(const LayerSite& site) const {
  check<ConfigError>(power_between_16_and_128(block_size), "block_size = ", block_size,
                     ": expected 16, 32, 64 or 128");
  check<ConfigError>(
      selection != "token_budget" || (token_budget >= block_size && token_budget % block_size == 0),
      "token_budget = ", token_budget, ": expected a positive multiple of block_size = ", block_size);
  check<ConfigError>(
      selection != "density" || !decode_form(),
      "selection = \"density\": the decode form cannot know a sequence's length beforehand; use "
      "token_budget, top_k or threshold");
  const int64_t chosen = selection == "top_k" ? top_k : token_budget / block_size;
  check<ConfigError>(selection == "threshold" || selection == "density" || first_blocks < chosen,
                     "first_blocks = ", first_blocks, ": expected fewer than the ", chosen, " blocks chosen");
  check<ConfigError>(!gate_rope || gate_hidden % 2 == 0, "gate_hidden = ", gate_hidden,
                     ": the rotary embedding needs an even size; or set gate_rope = false");
  if (gate_rope) RotaryEmbedding(site.rope, gate_hidden, site.max_position_embeddings);
  seer_gate_form(*this, site);
}

}  // namespace longreach
