// `longreach train CONFIG [--print-config | --dry-run [--world-size N]] [--section.key value ...]`

#include <algorithm>
#include <charconv>
#include <cmath>
#include <csignal>
#include <iomanip>
#include <iostream>
#include <map>
#include <sstream>
#include <utility>

#include "core/file_lock.h"
#include "core/machine.h"
#include "core/naming.h"
#include "core/verbose.h"
#include "data/ngram.h"
#include "data/tokenizers/tokenizer_ends.h"
#include "layers/ops/cpu/parallel.h"
#include "layers/ops/cuda/backend.h"
#include "layers/ops/matmul/matmul.h"
#include "train/base_model.h"
#include "train/decay_groups.h"
#include "train/device.h"
#include "train/export.h"
#include "train/generate_text.h"
#include "train/labels.h"
#include "train/program/build_info.h"
#include "train/program/command_line.h"
#include "train/program/example_config.h"
#include "train/program/last_words.h"
#include "train/program/plot/gnuplot.h"
#include "train/program/rank_output.h"
#include "train/program/requeue.h"
#include "train/program/standard_streams.h"
#include "train/program/terminal.h"
#include "train/ranks.h"
#include "train/run_size.h"
#include "train/shared_rows.h"
#include "train/signals.h"
#include "train/tokenizer_folder.h"
#include "train/trainer.h"

namespace longreach {
namespace {

std::string threads_text() { return text(num_threads(), num_threads() == 1 ? " thread" : " threads"); }

void print_header(const RunConfig& config, const data::Corpus& corpus, Transformer& model,
                  const Ranks& ranks) {
  int64_t parameters = 0, trained = 0;
  for (const auto& parameter : model.parameters()) {
    parameters += parameter.numel();
    trained += parameter.requires_grad() ? parameter.numel() : 0;
  }
  int64_t train_tokens = 0, valid_tokens = 0;
  for (const auto& source : corpus.train) train_tokens += source->num_tokens();
  for (const auto& source : corpus.valid) valid_tokens += source->num_tokens();
  std::vector<std::string> layers;
  for (const auto& layer : attention_per_layer(config.model.attention, config.model.num_hidden_layers))
    layers.emplace_back(kind_of(layer));
  std::ostringstream frozen;
  if (trained < parameters)
    frozen << ", " << std::fixed << std::setprecision(2) << static_cast<double>(trained) / 1e6
           << " of them train";
  const TrainingConfig& training = config.training;
  const int64_t micro_batches = step_plan(training, ranks.mesh.data).micro_batches;
  const DecayGroups decay = decay_groups(model);
  std::cout << std::fixed << std::setprecision(2) << "model      " << static_cast<double>(parameters) / 1e6
            << " million parameters" << frozen.str() << "; attention by layer: " << join(layers, " ") << "\n"
            << "data       " << train_tokens << " training tokens, " << valid_tokens
            << " held out; tokenizer " << corpus.tokenizer->name() << "\n"
            << "decay      " << text(config.optimizer.weight_decay) << " x lr on " << decay.decayed << "\n"
            << "           none on " << decay.left << "\n"
            << "step       " << training.batch_size << " rows x " << training.seq_len << " tokens x "
            << micro_batches << " micro-batches = " << training.batch_size * training.seq_len * micro_batches
            << " tokens, " << training.mixed_precision_param << ", " << threads_text() << ", products by "
            << name_of(matmul_library()) << "; " << training.steps << " steps\n";
  if (const int count = size_of(ranks.world()); count > 1)
    std::cout << "ranks      " << count << ", " << ranks.environment.local_world << " on this machine, "
              << threads_text() << " each; others log to " << config.job.dump_folder << "/ranks\n";
  if (const std::string job = slurm_job(); !job.empty()) std::cout << "Slurm job  " << job << "\n";
  std::cout << std::flush;
}

void warn_of_long_warmup(const RunConfig& config) {
  const int64_t warmup = config.lr_scheduler.warmup_steps, steps = config.training.steps;
  if (warmup <= steps) return;
  std::cerr << "warning: lr_scheduler.warmup_steps = " << warmup << " is more than training.steps = " << steps
            << ": the learning rate ends at " << 100 * steps / warmup << " % of optimizer.lr" << std::endl;
}

// Both orders, with a word while they are counted: that takes minutes where there is much text.
std::pair<double, double> ngram_baselines(const data::Corpus& corpus, RunLog& log) {
  log.say("counting   the bytes of the training text, for the baselines");
  const auto bits = [&](int order) {
    return data::ngram_bits_per_byte(corpus, order, [&](int64_t bytes) {
      log.working(text("counting   ", bytes / 1'000'000, " MB of text, order ", order));
    });
  };
  const double order2 = bits(2), order3 = bits(3);
  log.finish();
  return {order2, order3};
}

void print_final(const RunConfig& config, const data::Corpus& corpus, const Evaluation& held_out,
                 RunLog& log) {
  std::cout << std::fixed << std::setprecision(4) << "held out   " << held_out.bits_per_byte
            << " bits per byte, perplexity " << held_out.perplexity << " a token over " << held_out.tokens
            << " tokens\n"
            << std::flush;
  if (!config.validation.ngram) return;
  const auto [order2, order3] = ngram_baselines(corpus, log);
  std::cout << "baselines  " << order2 << " bits per byte: order-2 byte n-gram; " << order3
            << ": order-3 (interpolated Witten-Bell, same split)\n"
            << "margin     " << std::showpos << order2 - held_out.bits_per_byte << " below order 2, "
            << order3 - held_out.bits_per_byte << " below order 3\n"
            << std::noshowpos;
}

void print_sample(const RunConfig& config, const data::Corpus& corpus, Trainer& trainer) {
  const SampleConfig& sample = config.sample;
  if (sample.tokens == 0) return;
  TextRequest request{.prompt = sample.prompt, .chat_template = config.data.chat_template};
  request.begins_with_bos =
      data::bos_before_texts(*corpus.tokenizer, TokenizerFolder(config.data.tokenizer).path()).has_value();
  request.sampling = {.max_new_tokens = sample.tokens,
                      .temperature = sample.temperature,
                      .top_k = sample.top_k,
                      .top_p = sample.top_p,
                      .seed = static_cast<uint64_t>(config.training.seed)};
  trainer.model().eval();  // nothing is dropped
  try {
    const std::string written = generate_text(trainer.model(), *corpus.tokenizer, request);
    trainer.log().sample(trainer.step(), written);
    std::cout << "sample     ---\n" << written << "\n           ---\n";
  } catch (const UserError& error) {  // the run itself has done its work
    std::cout << "sample     none: " << error.what() << "\n";
  }
}

void print_places(const RunConfig& config, const Trainer& trainer) {
  if (!trainer.newest_checkpoint().empty()) std::cout << "checkpoint " << trainer.newest_checkpoint() << "\n";
  std::cout << "metrics    " << config.job.dump_folder << "/metrics.jsonl\n";
  if (config.metrics.plot) {
    try {
      const std::string file = config.job.dump_folder + "/loss.png";
      const auto curves = plot::read_run(config.job.dump_folder, "step", {"loss"});
      plot::draw(file, [&](const std::string& drawn) {
        return plot::curves_script(drawn, "step", {"loss"}, {curves});
      });
      std::cout << "plot       " << file << "\n";
    } catch (const Error& error) {  // no gnuplot is no reason to fail a finished run
      std::cout << "plot       none: " << error.what() << "\n";
    }
  }
  if (config.metrics.enable_tensorboard)
    std::cout << "tensorboard --logdir " << config.job.dump_folder << "/" << config.metrics.save_tb_folder
              << "\n";
}

// What `train` was asked for.
struct Asked {
  Arguments words;  // CONFIG and overrides
  bool help = false, print_config = false, dry_run = false;
  int64_t world_size = 0;  // of a dry run; 0: not said
};

// Of --world-size.
int64_t number_of_ranks(const std::string& written) {
  int64_t ranks = 0;
  const char* end = written.data() + written.size();
  const auto read = std::from_chars(written.data(), end, ranks);
  check(read.ec == std::errc{} && read.ptr == end && ranks >= 1 && ranks <= 1'000'000,
        "train: --world-size: expected a whole number from 1 to 1000000, found `", one_line(written, 100),
        "`");
  return ranks;
}

// Flags may stand anywhere but where they are the value of an override.
Asked parse_flags(const Arguments& arguments) {
  Asked asked;
  bool value_follows = false, verbose = false, world_follows = false;
  const std::map<std::string, bool*> flags = {{"-v", &verbose},
                                              {"--verbose", &verbose},
                                              {"-h", &asked.help},
                                              {"--help", &asked.help},
                                              {"--print-config", &asked.print_config},
                                              {"--dry-run", &asked.dry_run}};
  for (const std::string& word : arguments) {
    if (std::exchange(world_follows, !value_follows && !world_follows && word == "--world-size")) {
      asked.world_size = number_of_ranks(word);
      continue;
    }
    if (world_follows) continue;
    const auto flag = value_follows ? flags.end() : flags.find(word);
    if (flag != flags.end()) {
      *flag->second = true;
      continue;
    }
    value_follows = !value_follows && word.starts_with("--") && word.find('=') == std::string::npos;
    asked.words.push_back(word);
  }
  if (verbose) set_verbose(true);
  check(!asked.print_config || !asked.dry_run,
        "train: expected one of --print-config and --dry-run, found both");
  check(!world_follows, "train: --world-size: a number of ranks is missing");
  check(asked.world_size == 0 || asked.dry_run, "train: --world-size goes with --dry-run alone");
  return asked;
}

// What a dry run is of: as many ranks as were asked for, as there are, or, where there is one, as the degrees
// need.
int64_t world_of_dry_run(const Asked& asked, const Environment& environment, const ParallelConfig& config) {
  if (asked.world_size > 0) return asked.world_size;
  return environment.world > 1 ? environment.world : fewest_ranks(config);
}

// Before anything is written or allocated, or, but for the balance of ranks that share rows, read. True when
// that was all that was asked for.
bool answered(const Asked& asked, RunConfig& config, const Environment& environment,
              const std::shared_ptr<const data::Tokenizer>& tokenizer) {
  if (environment.rank > 0 && (asked.print_config || asked.dry_run)) return true;
  if (asked.print_config) {
    std::cout << to_toml(fields_of(config));
    return true;
  }
  const int64_t available = available_memory_bytes();
  if (!asked.dry_run) {
    expect_memory(size_of_run(config), config, available);
    return false;
  }
  const ParallelDegrees degrees =
      degrees_of(config.parallel, world_of_dry_run(asked, environment, config.parallel));
  expect_heads_for_all(config, degrees.context);
  const RunSize size = size_of_run(config, degrees);
  print_run_size(size, config, available, std::cout);
  // Ranks that are not here need nothing of this machine.
  if (size.ranks == environment.world) expect_memory(size, config, available);
  if (degrees.context > 1) print_shared_rows(config, degrees, tokenizer, std::cout);
  return true;
}

// What training needs of the machine beside memory for the model: a device, threads. Ranks of one machine
// share its cores.
void expect_device(const RunConfig& config, const Environment& environment) {
  if (config.parallel.device == "cuda") {
    show_own_device_alone(environment);
    cuda::backend();  // says now that there is no device
  }
  const int threads = threads_of_rank(environment, config.training.threads);
  expect_threads(2 * threads + 2);  // LibTorch has two pools
  if (threads != num_threads()) set_num_threads(threads);
}

// "FILE: ", where a key of an error was read; "--" where one of `keys` was given on the command line instead.
std::string place_of(const Arguments& words, const std::vector<std::string>& keys) {
  for (const auto& [key, value] : parse_overrides({words.begin() + 1, words.end()}))
    if (std::ranges::find(keys, key) != keys.end()) return "--";
  return words[0] + ": ";
}

struct RunTokenizer {
  explicit RunTokenizer(const std::string& spec) : folder(spec), tokenizer(folder.load()) {}
  TokenizerFolder folder;
  std::shared_ptr<const data::Tokenizer> tokenizer;
};

data::Corpus corpus_of(const RunConfig& config, const Arguments& words, const RunTokenizer& tokenizer) {
  data::DataConfig data = config.data;
  data.tokenizer = tokenizer.folder.path();
  try {
    return data::open_corpus(data, config.job.dump_folder + "/data", tokenizer.tokenizer);
  } catch (const DataError& error) {
    throw DataError(one_line(place_of(words, {"data.train", "data.valid"}) + error.what()));
  }
}

// The first rank makes the run folder and locks it; others speak to a log from then on.
struct RunFolder {
  RunFolder(const std::string& folder, const Ranks& ranks) {
    on_first_rank(ranks.world(), [&] {
      prepare_run_folder(folder);
      lock.emplace(FileLock::take(folder + "/.lock", "job.dump_folder: " + folder));
    });
    if (!ranks.first()) output.emplace(folder, ranks.environment.rank);
  }
  std::optional<FileLock> lock;
  std::optional<RankOutput> output;
};

Ranks meet(const Environment& environment, const RunConfig& config) {
  Ranks ranks = join_ranks(environment, config, text("longreach ", kVersion, "\nLibTorch ", kTorchVersion));
  step_plan(config.training, ranks.mesh.data);  // throws before anything is written
  return ranks;
}

// The first rank reads, or tokenizes, while the others wait; then they find everything there.
data::Corpus open_corpus_on_all(const RunConfig& config, const Arguments& words,
                                const RunTokenizer& tokenizer, const Ranks& ranks) {
  data::Corpus corpus = first_rank_first(ranks.world(), [&] { return corpus_of(config, words, tokenizer); });
  if (config.job.task != "distill")
    on_first_rank(ranks.world(), [&] {
      expect_labels(corpus, {.seq_len = config.training.seq_len, .varlen = config.training.varlen});
    });
  return corpus;
}

// While signals are watched, since Slurm sends more of them; and before any rank leaves, since engines end
// the others then. A signal that came after the last step is known to one rank alone until now.
void requeue_after_warning(const Ranks& ranks) {
  if (agree_on_step(ranks, false).signal == SIGUSR1) on_first_rank(ranks.world(), requeue_slurm_job);
}

// What this process has needed, export and all, beside what a dry run says of it.
void print_memory(const RunConfig& config, int64_t ranks) {
  if (config.parallel.device != "cpu") return;
  const auto gib = [](double bytes) { return bytes / (1 << 30); };
  std::cout << std::fixed << std::setprecision(2) << "memory     "
            << gib(static_cast<double>(peak_resident_bytes())) << " GiB resident at the peak, planned "
            << gib(size_of_run(config, degrees_of(config.parallel, ranks)).total())
            << " GiB of tensors in training\n";
}

// What is said, written and exported when the run is over; 128 + signal where one ended it.
int finish(const RunConfig& config, const data::Corpus& corpus, Trainer& trainer, const Ranks& ranks,
           RunOutcome outcome) {
  if (stop_requested() || outcome != RunOutcome::kFinished) {
    std::cout << (stop_requested() ? "interrupted" : "stopped") << " after step " << trainer.step() << "; "
              << (config.checkpoint.enable_checkpoint
                      ? "the same command goes on from there"
                      : "nothing was saved (checkpoint.enable_checkpoint = false)")
              << "\n";
  } else {
    if (config.validation.final && trainer.held_out())
      print_final(config, corpus, *trainer.held_out(), trainer.log());
    print_sample(config, corpus, trainer);
    export_formats_of(config.job.dump_folder, trainer.newest_checkpoint(), config.exports.format,
                      {.dtype = config.exports.dtype, .family = config.exports.family});
  }
  print_memory(config, size_of(ranks.world()));
  print_places(config, trainer);
  return stop_requested() ? 128 + stop_signal() : 0;
}

}  // namespace

int train_verb(const Arguments& arguments) {
  take_stop_signals_on_a_thread();
  outlive_readers();
  const Asked asked = parse_flags(arguments);
  const Arguments& words = asked.words;
  if (words.empty() || asked.help) {
    std::cout << (asked.help ? example_config(terminal_width()) : train_usage() + "\n");
    return asked.help ? 0 : 2;
  }
  const Environment environment = read_environment();
  RunConfig config =
      read_run_config(words[0], parse_overrides({words.begin() + 1, words.end()}), inherited_config);
  if (!asked.print_config && !asked.dry_run) expect_device(config, environment);
  const auto timed = [](const char* what, const auto& work) {
    const Stage stage(what);
    return work();
  };
  const auto tokenizer = timed("tokenizer", [&] {
    return naming<DataError>(place_of(words, {"data.tokenizer"}) + "data.tokenizer",
                             [&] { return std::make_unique<RunTokenizer>(config.data.tokenizer); });
  });
  config.resolve_model(tokenizer->tokenizer->vocab_size(), words[0]);
  config.expect_exportable(words[0]);
  if (answered(asked, config, environment, tokenizer->tokenizer)) return 0;
  const Ranks ranks = timed("ranks", [&] { return meet(environment, config); });
  const RunFolder folder(config.job.dump_folder, ranks);
  const data::Corpus corpus =
      timed("data", [&] { return open_corpus_on_all(config, words, *tokenizer, ranks); });
  const auto made =
      timed("model and state", [&] { return std::make_unique<Trainer>(config, corpus, ranks); });
  Trainer& trainer = *made;
  print_header(config, corpus, trainer.model(), ranks);
  warn_of_long_warmup(config);
  watch_stop_signals();
  const RunOutcome outcome = trainer.run();
  if (config.checkpoint.enable_checkpoint) requeue_after_warning(ranks);
  forget_stop_signals();  // what is left to do needs no saving
  if (!ranks.first()) return stop_requested() ? 128 + stop_signal() : 0;
  return finish(config, corpus, trainer, ranks, outcome);
}

}  // namespace longreach
