#include "apps/arguments.hpp"

#include <algorithm>
#include <iterator>
#include <sstream>

#include "config/words.hpp"
#include "core/error.hpp"
#include "core/text.hpp"

namespace lockstep {
namespace {

std::vector<const CLI::App*> commands_of(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

const CLI::App* find_command(const CLI::App& app, const std::string& name) {
  for (const CLI::App* command : commands_of(app))
    if (command->get_name() == name) return command;
  return nullptr;
}

/// The command that the words name, as deep as they go.
const CLI::App& command_of(const CLI::App& app, const std::vector<std::string>& words) {
  const CLI::App* command = &app;
  for (const std::string& word : words) {
    const CLI::App* inner = find_command(*command, word);
    if (inner == nullptr) break;
    command = inner;
  }
  return *command;
}

std::string suggestion(const std::string& word, const std::vector<std::string>& known) {
  const std::string meant = config::nearest(word, known);
  return meant.empty() ? "" : fmt::format(", did you mean '{}'?", meant);
}

/// The first word that looks like an option of the command but is none.
std::string unknown_option(const CLI::App& command, const std::vector<std::string>& words) {
  for (const std::string& word : words) {
    const std::string name = word.substr(0, word.find('='));
    if (name.starts_with("--") && name.size() > 2 && command.get_option_no_throw(name) == nullptr) return name;
  }
  return {};
}

}  // namespace

std::string with_separators(std::int64_t number) {
  std::string text = std::to_string(number);
  const std::size_t first = number < 0 ? 1 : 0;
  for (std::size_t at = text.size(); at > first + 3;) text.insert(at -= 3, ",");
  return text;
}

void add_examples(CLI::App& command, const std::string& first, const std::string& second) {
  command.footer(fmt::format("Examples:\n  {}\n  {}", first, second));
}

void require_known_command(const CLI::App& app, const std::vector<std::string>& words) {
  const CLI::App* command = &app;
  std::string path = "lockstep";
  for (const std::string& word : words) {
    if (commands_of(*command).empty() || word.starts_with('-')) return;
    const CLI::App* inner = find_command(*command, word);
    if (inner == nullptr) {
      std::vector<std::string> names;
      for (const CLI::App* known : commands_of(*command)) names.push_back(known->get_name());
      fail(ErrorKind::config, "{}: unknown command '{}'{}; commands: {}", path, printable(word),
           suggestion(word, names), config::join(names));
    }
    command = inner;
    path += " " + word;
  }
}

std::string complaint(const CLI::App& app, const CLI::ParseError& error, const std::vector<std::string>& words) {
  const CLI::App& command = command_of(app, words);
  if (const std::string word = unknown_option(command, words);
      dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr && !word.empty()) {
    std::vector<std::string> names;
    for (const CLI::Option* option : command.get_options())
      for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    return fmt::format("lockstep {}: unknown option '{}'{}; options: {}", command.get_name(), printable(word),
                       suggestion(word, names), config::join(names));
  }
  std::ostringstream text;
  (void)app.exit(error, text, text);
  std::string message = text.str();
  while (message.ends_with('\n')) message.pop_back();
  return message;
}

}  // namespace lockstep
