#include "data/synthetic/conversations.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "core/error.h"
#include "data/common/files.h"
#include "data/corpora/byte_stream.h"
#include "data/corpora/fetch.h"
#include "data/random.h"
#include "data/synthetic/sections.h"

namespace longreach::data {
namespace {

using Json = nlohmann::ordered_json;

std::vector<Section> all_sections(const std::string& source) {
  const std::string folder = is_named_corpus(source) ? fetch_corpus(source).text_folder : source;
  std::vector<Section> all;
  for (const std::string& path : list_files(folder))
    for (Section& section : sections_of(read_whole(path))) all.push_back(std::move(section));
  return all;
}

std::string line_of(const Section& section, uint64_t draw) {
  const Exchange exchange = exchange_of(section, draw);
  const Json question{{"role", "user"}, {"content", exchange.question}},
      answer{{"role", "assistant"}, {"content", exchange.answer}};
  const Json line{{"messages", Json::array({question, answer})}};
  return line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace

int64_t write_conversations(const std::string& path, const ConversationsOptions& options) {
  check<DataError>(!std::filesystem::exists(path), one_line(path), ": exists already; expected a new file");
  const std::vector<Section> sections = all_sections(options.source);
  const auto all = static_cast<int64_t>(sections.size());
  check<DataError>(options.samples <= all && options.skip <= all - options.samples, one_line(options.source),
                   ": ", all, " sections can be asked for; wanted are ", options.samples,
                   " behind the first ", options.skip);
  const Permutation order(sections.size(), options.seed);
  std::string lines;
  for (int64_t i = options.skip; i < options.skip + options.samples; ++i) {
    const auto number = static_cast<uint64_t>(i);
    lines += line_of(sections[order(number)], random_bits(options.seed, 1, number));
  }
  write_atomically(path, lines);
  return all;
}

}  // namespace longreach::data
