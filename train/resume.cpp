#include "train/resume.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <optional>

#include "train/config_changes.h"
#include "train/saved_model.h"
#include "train/warn.h"

namespace longreach {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

// A string of the form "NAME:TOKENS;NAME:TOKENS; seed 1 seq_len 2 rows 3 varlen 1", of which the names are
// paths.
Json parsed_identity(const std::string& written) {
  Json identity;
  const size_t end = written.rfind(';');
  long long seed = 0, seq_len = 0, rows = 0;
  int varlen = 0;
  if (end == std::string::npos ||
      std::sscanf(written.c_str() + end, "; seed %lld seq_len %lld rows %lld varlen %d", &seed, &seq_len,
                  &rows, &varlen) != 4)
    return identity;
  identity = {{"seed", seed}, {"seq_len", seq_len}, {"rows", rows}, {"varlen", varlen != 0}};
  for (size_t begin = 0, stop = 0; begin < end; begin = stop + 1) {
    stop = written.find(';', begin);
    const size_t colon = written.rfind(':', stop);
    const std::string digits = written.substr(colon + 1, stop - colon - 1);
    const bool number =
        !digits.empty() && digits.size() < 18 && digits.find_first_not_of("0123456789") == std::string::npos;
    if (number && colon >= begin) identity["train"].push_back({{"tokens", std::stoll(digits)}});
  }
  return identity;
}

std::optional<std::string> change_of_text(const Json& before, const Json& now, const std::string& name) {
  if (before.value("tokens", Json()) != now.value("tokens", Json()))
    return text(name, " has ", now.value("tokens", Json()), " tokens, it had ",
                before.value("tokens", Json()));
  if (before.contains("content") && before["content"] != now["content"])
    return text(name, " holds other text of as many tokens");
  return std::nullopt;
}

std::optional<std::string> held_out_change(const Json& before, const Json& now) {
  if (!before.is_object() || !before.contains("valid")) return std::nullopt;
  return change_of_text(before["valid"], now["valid"], "the held-out text");
}

std::vector<std::string> changes_of_sources(const Json& before, const Json& now) {
  if (before.size() != now.size())
    return {text("data.train has ", now.size(), " sources, it had ", before.size())};
  std::vector<std::string> changes;
  for (size_t i = 0; i < now.size(); ++i)
    if (auto change = change_of_text(before[i], now[i], "data.train: " + now[i]["name"].get<std::string>()))
      changes.push_back(std::move(*change));
  return changes;
}

// The config that the checkpoint was written with; nothing when this version of the program cannot read it.
std::optional<RunConfig> kept_config(const CheckpointReader& checkpoint, const std::string& origin) {
  const auto written = checkpoint.texts().find("config.toml");
  if (written == checkpoint.texts().end()) return std::nullopt;
  try {
    return parse_saved_config(written->second, origin + "/config.toml");
  } catch (const ConfigError& error) {
    warn(text("what has changed since the checkpoint is not known: ", error.what()));
    return std::nullopt;
  }
}

void expect_tokenizer(const Json& state, const std::optional<RunConfig>& kept, const RunConfig& own,
                      const data::Tokenizer& tokenizer, const std::string& origin) {
  const std::string before = state.value("tokenizer", std::string()), now = tokenizer.fingerprint();
  check<CheckpointError>(before.empty() || before == now, one_line(origin, 300),
                         ": was trained with the tokenizer ", one_line(before, 40),
                         kept ? " (" + one_line(kept->data.tokenizer, 200) + ")" : "", ", data.tokenizer is ",
                         now, " (", one_line(own.data.tokenizer, 200), ")");
}

// Keys of [model] that change neither parameters nor what is computed of them.
bool is_free(const std::string& key) {
  return key == "model.initializer_range" || key.starts_with("model.attention.backend ");
}

void expect_model(const RunConfig& kept, const RunConfig& own, const std::string& origin) {
  auto changes = model_changes(kept.model, own.model);
  std::erase_if(changes, [](const KeyChange& change) { return is_free(change.key); });
  check<CheckpointError>(changes.empty(),
                         one_line(text(origin, ": is of another model: ", contrasted(changes))));
}

double rate_at(const RunConfig& config, int64_t step) {
  return config.optimizer.lr * learning_rate_factor(config.lr_scheduler, step, config.training.steps);
}

// A rise that the schedule so far would not have made either.
void warn_of_rate(const RunConfig& kept, const RunConfig& own, int64_t step) {
  if (step < 1) return;
  const double last = rate_at(kept, step), planned = rate_at(kept, step + 1), next = rate_at(own, step + 1);
  if (next <= 1.01 * std::max(last, planned)) return;
  const std::string factor = last > 0 ? text(" (", std::round(next / last * 10) / 10, " times)") : "";
  const bool stretched = kept.training.steps != own.training.steps;
  warn(text(
      "the learning rate rises from ", last, " at step ", step, " to ", next, " at step ", step + 1, factor,
      stretched
          ? text("; training.steps ", kept.training.steps, " -> ", own.training.steps,
                 " stretches the schedule (lr_scheduler.decay_type = \"", own.lr_scheduler.decay_type, "\")")
          : ""));
}

void print_changes(const RunConfig& kept, const RunConfig& own) {
  auto changes = run_changes(kept, own);
  for (const KeyChange& change : model_changes(kept.model, own.model)) changes.push_back(change);
  for (const KeyChange& change : changes) std::cout << "changed    " << described(change) << std::endl;
  if (own.checkpoint.initial_load_path != kept.checkpoint.initial_load_path &&
      !own.checkpoint.initial_load_path.empty())
    warn("checkpoint.initial_load_path has no effect: the run goes on from its own checkpoint");
}

}  // namespace

std::string data_identity(const RunConfig& config, const data::Corpus& corpus) {
  nlohmann::ordered_json identity;  // names are UTF-8: the config takes no others
  identity["train"] = Json::array();
  for (size_t i = 0; i < corpus.train.size(); ++i) {
    fs::path entry = fs::path(config.data.train[i]).lexically_normal();
    if (!entry.has_filename()) entry = entry.parent_path();  // "folder/"
    identity["train"].push_back({{"name", entry.filename().string()},
                                 {"tokens", corpus.train[i]->num_tokens()},
                                 {"content", corpus.train[i]->fingerprint()}});
  }
  identity["shares"] = corpus.probabilities;
  int64_t tokens = 0;
  std::string content;
  for (const auto& source : corpus.valid) {
    content += source->fingerprint();
    tokens += source->num_tokens();
  }
  identity["valid"] = {{"tokens", tokens}, {"content", content}};
  identity["seed"] = config.training.seed;
  identity["seq_len"] = config.training.seq_len;
  identity["rows"] = config.training.batch_size * config.training.gradient_accumulation_steps;
  identity["varlen"] = config.training.varlen;
  return identity.dump();
}

std::vector<std::string> data_changes(const Json& before, const Json& now) {
  if (before.is_string()) return data_changes(parsed_identity(before.get<std::string>()), now);
  if (!before.is_object()) return {"the checkpoint does not say on what"};
  auto changes = changes_of_sources(before.value("train", Json::array()), now["train"]);
  if (changes.empty() && before.contains("shares") && before["shares"] != now["shares"])
    changes.push_back(text("data.data_probs: shares ", before["shares"], " -> ", now["shares"]));
  for (const auto& [key, name] :
       {std::pair("seed", "training.seed"), std::pair("seq_len", "training.seq_len"),
        std::pair("rows", "rows a step"), std::pair("varlen", "training.varlen")})
    if (before.value(key, Json()) != now[key])
      changes.push_back(text(name, " ", before.value(key, Json()), " -> ", now[key]));
  return changes;
}

Json run_state(const CheckpointReader& checkpoint) {
  const std::string& origin = checkpoint.path();
  const auto written = checkpoint.texts().find("state.json");
  check<CheckpointError>(written != checkpoint.texts().end(), origin, ": holds no state.json");
  auto state = Json::parse(written->second, nullptr, false);
  check<CheckpointError>(state.is_object() && state.contains("total_tokens") &&
                             state.contains("skip_steps") && state.contains("data"),
                         origin, ": state.json is not one of this program");
  return state;
}

void compare_with_checkpoint(const CheckpointReader& checkpoint, const RunConfig& own,
                             const data::Tokenizer& tokenizer, const std::string& data_identity) {
  const std::string& origin = checkpoint.path();
  const Json state = run_state(checkpoint), identity = Json::parse(data_identity);
  const auto kept = kept_config(checkpoint, origin);
  expect_tokenizer(state, kept, own, tokenizer, origin);
  if (kept) expect_model(*kept, own, origin);
  expect_adapter(checkpoint.model(), checkpoint.texts(), own.adapter, origin, false);
  if (const auto changes = data_changes(state["data"], identity); !changes.empty())
    warn(text(origin, " was trained on other data: ", join(changes, "; "),
              "; the order of the data changes from here on"));
  if (const auto change = held_out_change(state["data"], identity))
    warn(text(origin, ": ", *change, "; its losses there do not compare with those from here on"));
  if (!kept) return;
  warn_of_rate(*kept, own, checkpoint.step());
  print_changes(*kept, own);
}

}  // namespace longreach
