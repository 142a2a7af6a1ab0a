// Whole attention layers, one case a kind: projections, positions, gates, choices and the output projection,
// as a model runs them.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "layers/attention/attention.h"
#include "layers/attention/mechanisms.h"
#include "layers/ops/cpu/peak.h"
#include "train/bench/memory.h"
#include "train/bench/setting.h"

namespace longreach::bench {

// "dense_layer", "nsa_layer", ...: a layer of every kind, with its default options unless Setting::options
// says otherwise.
std::string layer_name(const std::string& kind);
std::vector<std::string> layer_names();
bool is_layer(const std::string& name);
// What a layer can be compared with: `sdpa`, the same projections and rotary embedding around
// scaled_dot_product_attention; `dense`, a layer of our dense attention.
std::vector<std::string> layer_peer_names();
// Throws UserError for another peer (an empty one is none), and for options and sizes that the kind refuses.
void expect_layer_setting(const Setting& setting);

AttentionConfig layer_config(const Setting& setting);
// The hidden size is heads x head_dim.
std::shared_ptr<Attention> layer_of(const Setting& setting,
                                    Implementation implementation = Implementation::fused);

using LayerFunction = std::function<AttentionOutput(const at::Tensor& x)>;
struct Passes {
  at::Tensor y, dx;
};
// Forward and, where dy is defined, the gradients of x, a leaf, and of every parameter.
Passes layer_passes(const LayerFunction& function, at::Tensor& x, const at::Tensor& dy);

// flops are what the mechanism says its algorithm needs, three times
// that for both passes. Before anything is timed, y and (both passes) dx of the first 256 tokens are held in
// float32 to the reference implementation in float64 (require_rows, agreement.h).
// A row without numbers says why in `refused`.
Row measure_layer(const Setting& setting, Peak peak);

// Extra memory of both passes; its results are y, dx and the gradients of the parameters. A layer keeps
// projections and what they need for their gradients too, so that its growth with T says more than its size.
// Call it in a fresh process.
MemoryFigure layer_memory_figure(const Setting& setting);

}  // namespace longreach::bench
