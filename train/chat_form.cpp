#include "train/chat_form.h"

#include "data/corpora/chat_format.h"
#include "train/tokenizer_export.h"

namespace longreach {
namespace {

// Some templates write the date. The same sample has the same prompt on every day: 26 July 2024, which those
// of Llama 3 take where they are told none.
constexpr std::time_t kNoon = 1721995200;

}  // namespace

std::optional<data::PromptForm> chat_form(const SavedModel& saved) {
  const auto format = data::ChatFormat::from_files(tokenizer_export(saved), saved.path);
  if (!format) return std::nullopt;
  return [format](const std::string& request, const std::string& beginning) {
    const nlohmann::ordered_json turn{{"role", "user"}, {"content", request}};
    return format->prompt_text({{"messages", nlohmann::ordered_json::array({turn})}}, kNoon) + beginning;
  };
}

}  // namespace longreach
