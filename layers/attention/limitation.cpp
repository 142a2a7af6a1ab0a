// The words for each ability, and the refusal.
#include "layers/attention/limitation.h"

#include "core/error.h"

namespace longreach {

std::string_view inability(Ability ability) {
  switch (ability) {
    case Ability::pretraining:
      return "cannot be pre-trained";
    case Ability::packed_documents:
      return "cannot read packed documents";
    case Ability::bfloat16:
      return "cannot compute in bfloat16";
    case Ability::activation_checkpoint:
      return "cannot be recomputed in the backward pass";
    case Ability::decoding:
      return "cannot generate text";
    case Ability::context_parallel:
      return "cannot share a sequence over ranks (context parallel)";
  }
  return "";
}

void expect_ability(std::string_view kind, const std::vector<Limitation>& limitations, Ability ability,
                    std::string_view asked) {
  for (const Limitation& limitation : limitations)
    check<ConfigError>(limitation.ability != ability, asked, ": `", kind, "` ", inability(ability), ": ",
                       limitation.reason);
}

}  // namespace longreach
