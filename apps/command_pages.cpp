#include "apps/command_pages.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <sstream>
#include <vector>

#include "core/error.hpp"
#include "core/text.hpp"

namespace lockstep {
namespace {

std::vector<const CLI::App*> commands_of(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

/// Calls visit(command, "bench step") for every command, in the order of --help.
void for_each_command(const CLI::App& app, const std::function<void(const CLI::App&, const std::string&)>& visit,
                      const std::string& path = "") {
  for (const CLI::App* command : commands_of(app)) {
    const std::string name = path.empty() ? command->get_name() : path + " " + command->get_name();
    visit(*command, name);
    for_each_command(*command, visit, name);
  }
}

/// "--resume", "-n": the names that start with a dash.
std::vector<std::string> flags_of(const CLI::App& command) {
  std::vector<std::string> flags;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) flags.push_back("--" + name);
    for (const std::string& name : option->get_snames()) flags.push_back("-" + name);
  }
  return flags;
}

std::vector<std::string> names_of(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : commands_of(app)) names.push_back(command->get_name());
  return names;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
  return text;
}

std::string bash_script(const CLI::App& app) {
  std::string cases;
  const auto add = [&](const CLI::App& command, const std::string& path) {
    std::vector<std::string> words = names_of(command);
    for (const std::string& flag : flags_of(command)) words.push_back(flag);
    cases += fmt::format("    '{}') words='{}' ;;\n", path, fmt::join(words, " "));
  };
  add(app, "");
  for_each_command(app, add);
  return fmt::format(R"(# bash completion of lockstep: source this file, or put it into a folder of bash-completion
_lockstep() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} path='' word words
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    case $word in
      [a-z]*) case " {} " in *" ${{path:+$path }}$word,"*) path+=${{path:+ }}$word ;; esac ;;
    esac
  done
  case $path in
{}    *) words='' ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  # Otherwise files, where a command takes some.
  if [[ -n $path && $current != -* ]]; then COMPREPLY+=($(compgen -f -- "$current")); fi
}}
complete -o filenames -F _lockstep lockstep
)",
                     [&] {
                       std::string all;
                       for_each_command(app, [&](const CLI::App&, const std::string& path) { all += path + ", "; });
                       return all;
                     }(),
                     cases);
}

std::string quoted(const std::string& text) { return "'" + replaced(text, "'", R"('\'')") + "'"; }

std::string zsh_script(const CLI::App& app) {
  const auto described = [](const std::string& name, const std::string& about) {
    return quoted(replaced(name, ":", "\\:") + ":" + about);
  };
  std::string script =
      "#compdef lockstep\n# zsh completion of lockstep: put it as _lockstep into a folder of $fpath\n_lockstep() {\n";
  script += "  local -a entries\n  local path=${(j: :)${(@)words[2,CURRENT-1]:#-*}}\n  case $path in\n";
  const auto add = [&](const CLI::App& command, const std::string& path) {
    script += fmt::format("    {}) entries=(", path.empty() ? "''" : quoted(path) + "*");
    for (const CLI::App* inner : commands_of(command))
      script += " " + described(inner->get_name(), inner->get_description());
    for (const CLI::Option* option : command.get_options())
      for (const std::string& name : option->get_lnames())
        script += " " + described("--" + name, option->get_description());
    script += " ) ;;\n";
  };
  add(app, "");
  // The deepest first: the first pattern that fits is taken.
  std::vector<std::pair<const CLI::App*, std::string>> all;
  for_each_command(app, [&](const CLI::App& command, const std::string& path) { all.emplace_back(&command, path); });
  std::stable_sort(all.begin(), all.end(),
                   [](const auto& a, const auto& b) { return a.second.size() > b.second.size(); });
  for (const auto& [command, path] : all) add(*command, path);
  return script + "  esac\n  _describe lockstep entries\n  [[ -n $path ]] && _files\n}\n_lockstep \"$@\"\n";
}

std::string fish_script(const CLI::App& app) {
  std::string script = "# fish completion of lockstep: put it as lockstep.fish into ~/.config/fish/completions\n";
  const std::string top = fmt::format("{}", fmt::join(names_of(app), " "));
  const auto condition = [&](const std::string& path) {
    if (path.empty()) return fmt::format("not __fish_seen_subcommand_from {}", top);
    std::string text;
    std::istringstream words(path);
    for (std::string word; words >> word;)
      text += (text.empty() ? "" : "; and ") + fmt::format("__fish_seen_subcommand_from {}", word);
    return text;
  };
  const auto add = [&](const CLI::App& command, const std::string& path) {
    for (const CLI::App* inner : commands_of(command))
      script += fmt::format("complete -c lockstep -f -n {} -a {} -d {}\n", quoted(condition(path)), inner->get_name(),
                            quoted(inner->get_description()));
    for (const CLI::Option* option : command.get_options())
      for (const std::string& name : option->get_lnames())
        script += fmt::format("complete -c lockstep -n {} -l {} -d {}\n", quoted(condition(path)), name,
                              quoted(option->get_description()));
  };
  add(app, "");
  for_each_command(app, add);
  return script;
}

/// Text for roff: no line begins with a control character, backslashes and hyphens are themselves.
std::string roff(const std::string& text) {
  std::string result = replaced(replaced(text, "\\", "\\e"), "-", "\\-");
  if (result.starts_with('.') || result.starts_with('\'')) result = "\\&" + result;
  return replaced(result, "\n.", "\n\\&.");
}

}  // namespace

std::string completion_script(const CLI::App& app, const std::string& shell) {
  if (shell == "bash") return bash_script(app);
  if (shell == "zsh") return zsh_script(app);
  if (shell == "fish") return fish_script(app);
  fail(ErrorKind::config, "completion: there is none for '{}'; there are bash, zsh and fish", printable(shell));
}

std::string manual_page(const CLI::App& app, const std::string& version) {
  std::string page = fmt::format(".TH LOCKSTEP 1 \"\" \"lockstep {}\" \"User commands\"\n", version);
  page += ".SH NAME\nlockstep \\- trains models data\\-parallel from one YAML file\n.SH SYNOPSIS\n";
  for_each_command(app, [&](const CLI::App& command, const std::string& path) {
    if (!commands_of(command).empty()) return;
    page += fmt::format(".B lockstep {}\n", roff(path));
    for (const CLI::Option* option : command.get_options())
      if (option->get_positional()) {
        const std::string name = replaced(option->get_name(true), " ...", "");
        page += option->get_required() ? fmt::format(".I {}\n", roff(name)) : fmt::format("[\\fI{}\\fR]\n", roff(name));
      }
    page += "[options]\n.br\n";
  });
  page += ".SH DESCRIPTION\n" + roff(app.get_description()) +
          "\nEvery rank runs the same step; rank 0 evaluates the learning\\-rate schedule and all ranks apply the same "
          "values. "
          "Start with\n.B lockstep init\nand\n.BR \"lockstep train\" .\n";
  page += ".SH COMMANDS\n";
  for_each_command(app, [&](const CLI::App& command, const std::string& path) {
    page += fmt::format(".SS {}\n{}\n", roff(path), roff(command.get_description()));
    for (const CLI::Option* option : command.get_options()) {
      const std::string name = option->get_name(option->get_positional(), true);
      const std::string value = option->get_default_str();
      page += fmt::format(".TP\n.B {}\n{}{}\n", roff(replaced(name, ",", ", ")), roff(option->get_description()),
                          value.empty() ? "" : fmt::format(" (default {})", roff(value)));
    }
    if (const std::string footer = command.get_footer(); !footer.empty())
      page += ".PP\n.nf\n" + roff(footer) + "\n.fi\n";
  });
  page +=
      ".SH EXIT STATUS\n.TS\ntab(|);\nl l.\n0|done\n1|internal error\n2|mistake in a job file or on the command line\n"
      "3|data\n4|checkpoint\n5|training diverged\n6|a rank does not answer\n7|ranks disagree\n"
      "8|something the machine lacks\n75|stopped by a signal, everything saved\n.TE\n";
  page += ".SH FILES\n.TP\n.I <output_dir>/<name>/\na run: job.yaml, metrics.jsonl, checkpoints/\n";
  return page + ".SH SEE ALSO\n.BR mpirun (1)\n";
}

}  // namespace lockstep
