// What a mechanism cannot do, said by its config, with the reason: `longreach info` prints it, the program
// refuses what asks for it, and the tests that run over every mechanism expect that refusal instead of the
// result.
//
// A config with limits has a member
//
//   std::vector<Limitation> limitations() const {
//     return {{Ability::decoding, "a query's keys depend on tokens after it"}};
//   }
//
// which may look at the config's own options. A config without it can do everything.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace longreach {

enum class Ability {
  pretraining,            // job.task = "pretrain": learns from next-token loss alone
  packed_documents,       // training.varlen: several documents in a row
  bfloat16,               // training.mixed_precision_param = "bfloat16"
  activation_checkpoint,  // activation_checkpoint.mode = "full"
  decoding,               // generation: token by token with a state
  context_parallel,       // parallel.context_parallel_degree: one sequence over several ranks
};

struct Limitation {
  Ability ability;
  std::string reason;  // completes "cannot ...: "
};

// "cannot generate text", ...
std::string_view inability(Ability ability);

template <class Config>
std::vector<Limitation> limitations_of(const Config& config) {
  if constexpr (requires { config.limitations(); })
    return config.limitations();
  else
    return {};
}

// Throws ConfigError that begins with `asked` (the key or the verb) when `limitations` of the mechanism
// `kind` name the ability.
void expect_ability(std::string_view kind, const std::vector<Limitation>& limitations, Ability ability,
                    std::string_view asked);

}  // namespace longreach
