#pragma once

// Odd job files, made systematically: each with the place of its first error, or accepted.

#include <fmt/format.h>

#include <string>
#include <utility>
#include <vector>

namespace lockstep::job {

struct OddFile {
  std::string text;
  std::string place;                        ///< of the first error: "3:9", "--set run.steps=x"; empty: accepted
  std::string part = {};                    ///< of the errors' text
  std::vector<std::string> overrides = {};  ///< --set
  std::string name = "job.yaml";            ///< decides between YAML and JSON
};
using OddFiles = std::vector<OddFile>;

inline std::string at(std::size_t line, std::size_t column) { return fmt::format("{}:{}", line, column); }

/// A key, and the line of `job_with` on which it stands.
struct Slot {
  std::string section;  ///< empty: the top level
  std::string key;
};

/// A job in block style with one more line, which is line 9 in `run`, 5 in `model`, 7 in `data` and 10 elsewhere.
inline OddFile job_with(const Slot& slot, const std::string& value, const std::string& part) {
  std::vector<std::string> lines = {"model:",           "  type: mlp", "  hidden: [16]", "data:",
                                    "  type: clusters", "run:",        "  steps: 20",    "train_batch_size: 8"};
  const std::string indent = slot.section.empty() ? "" : "  ";
  std::size_t line = lines.size();
  if (slot.section == "model") line = 3;
  if (slot.section == "data") line = 5;
  if (slot.section == "run") line = 7;
  if (line == lines.size() && !slot.section.empty()) {
    lines.push_back(slot.section + ":");
    ++line;
  }
  const std::string key = indent + slot.key + ": ";
  lines.insert(lines.begin() + static_cast<std::ptrdiff_t>(line), key + value);
  std::string text;
  for (const std::string& one : lines) text += one + "\n";
  return {text, at(line + 1, key.size() + 1), part};
}

/// The same in one line of JSON: the column tells.
inline OddFile json_with(const Slot& slot, const std::string& value, const std::string& part) {
  std::string text = R"({"model": {"type": "mlp"}, "data": {"type": "clusters"}, "train_batch_size": 8, )";
  if (slot.section == "run")
    text += R"("run": {"steps": 20, ")";
  else
    text += R"("run": {"steps": 20}, )" + (slot.section.empty() ? "\"" : fmt::format("\"{}\": {{\"", slot.section));
  text += slot.key + "\": ";
  const std::size_t column = text.size() + 1;
  text += value + (slot.section.empty() ? "}" : "}}");
  return {text, at(1, column), part, {}, "job.json"};
}

/// What is no number, in places where one belongs; with what the error says.
inline const std::vector<std::pair<std::string, std::string>>& no_integers() {
  static const std::vector<std::pair<std::string, std::string>> all = {
      {"\"7\"", "remove the quotes"},
      {"'7'", "remove the quotes"},
      {"seven", "got 'seven'"},
      {"0x10", "not hexadecimal"},
      {"0b1", "not hexadecimal, octal or binary"},
      {"010", "no leading zeros"},
      {"1_000", "without separators"},
      {"1e400", "too large"},
      {"99999999999999999999", "does not fit"},
      {".inf", "must be finite"},
      {".nan", "must be finite"},
      {"-7", "out of range"},
      {"1.5", "not a whole number"},
      {"true", "got 'true'"},
      {"[7]", "got a list"},
      {"{a: 7}", "got a block"},
      {"7 8", "got '7 8'"},
      {"7%", "got '7%'"},
      {"\xEF\xBC\x97", "got"},  // a full-width 7
      {"\xE2\x88\x92"
       "7",
       "got"},  // a minus sign that is no hyphen
      {"\xC2\xA0"
       "7",
       "got"},  // a blank that is none
      {"~7", "got '~7'"},
      {"2**3", "got '2**3'"},
      {"$N", "got '$N'"},
  };
  return all;
}

inline const std::vector<Slot>& integer_slots() {
  static const std::vector<Slot> all = {{"run", "seed"},         {"run", "eval_every"},
                                        {"", "steps_per_print"}, {"", "gradient_accumulation_steps"},
                                        {"comm", "ranks"},       {"fp16", "hysteresis"}};
  return all;
}

/// Kinds of wrong values x keys x styles.
inline OddFiles wrong_values() {
  OddFiles all;
  for (const Slot& slot : integer_slots())
    for (const auto& [value, part] : no_integers()) {
      all.push_back(job_with(slot, value, part));
      all.push_back(json_with(slot, value, part));
    }
  for (const Slot& slot : integer_slots()) {
    all.push_back(job_with(slot, "1,5", "the decimal sign is a point: 1.5"));
    all.push_back(job_with(slot, "1,000", "without separators"));
    all.push_back(job_with(slot, "7,", "remove the comma"));
    all.push_back(json_with(slot, "1,5", "the decimal sign is a point: 1.5"));
    all.push_back(job_with(slot, "${N}", "${N} is not filled in"));
    all.push_back(json_with(slot, "\"${N}\"", "${N} is not filled in"));
  }
  for (const Slot& slot : {Slot{"comm", "share_gpu"}, Slot{"fp16", "enabled"}, Slot{"bf16", "enabled"}})
    for (const char* value : {"yes", "No", "on", "OFF", "True", "FALSE", "1", "0", "\"true\"", "'false'", "y", "[]"}) {
      all.push_back(job_with(slot, value, "expected true or false"));
      all.push_back(json_with(slot, value, "expected true or false"));
    }
  return all;
}

/// A quote, a bracket or a comma too few or too many, at every place of a file where that can happen.
inline OddFiles broken_structure() {
  OddFiles all;
  for (const char quote : {'"', '\''})
    for (const Slot& slot : {Slot{"model", "x"}, Slot{"data", "x"}, Slot{"run", "name"}, Slot{"", "deepspeed"}}) {
      const std::string opened = fmt::format("{}abc", quote);
      all.push_back(job_with(slot, opened, "this quote is not closed on its line"));
      OddFile swallowing = job_with(slot, opened, "this quote is not closed on its line");
      swallowing.text += fmt::format("steps_per_print: {}5\n", quote);  // which closes it, lines later
      all.push_back(swallowing);
      OddFile json = json_with(slot, opened, "this quote is not closed on its line");
      all.push_back(json);
    }
  for (const Slot& slot : {Slot{"run", "name"}, Slot{"data", "noise"}, Slot{"", "parameter_groups"}}) {
    all.push_back(job_with(slot, "[1, 2", "this [ is never closed"));
    all.push_back(job_with(slot, "{a: 1", "this { is never closed"));
    all.push_back(job_with(slot, "{a: [1}", "this [ is not closed before the }"));
    all.back().place = at(std::stoul(all.back().place), std::stoul(all.back().place.substr(2)) + 4);
    all.push_back(job_with(slot, "@x", "a value cannot begin with @"));
    all.push_back(job_with(slot, "`x`", "a value cannot begin with `"));
    all.push_back(job_with(slot, "%x", "a value cannot begin with %"));
    all.push_back(job_with(slot, "|", "a text over several lines"));
    all.push_back(job_with(slot, "&a 1", "anchors"));
    all.push_back(job_with(slot, "*a", "aliases"));
    all.push_back(job_with(slot, "!!int 1", "type tags"));
  }
  // A JSON file, one entry a line, without the comma at the end of line i, or with the line itself cut.
  const std::vector<std::string> lines = {"{",
                                          R"(  "model": {"type": "mlp"},)",
                                          R"(  "data": {"type": "clusters"},)",
                                          R"(  "run": {"steps": 20},)",
                                          R"(  "train_batch_size": 8,)",
                                          R"(  "gradient_clipping": 1)",
                                          "}"};
  const auto joined = [](const std::vector<std::string>& some) {
    std::string text;
    for (const std::string& line : some) text += line + "\n";
    return text;
  };
  for (std::size_t i = 1; i < 5; ++i) {
    std::vector<std::string> some = lines;
    some[i].pop_back();
    all.push_back({joined(some), at(i + 2, 3), "a comma is missing before this", {}, "job.json"});
    some = lines;
    some[i].insert(some[i].find(':'), "\"");
    all.push_back({joined(some), "", "", {}, "job.json"});
    all.back().place = at(i + 1, some[i].find(':'));
    all.back().part = "error: ";
  }
  for (std::size_t i = 1; i < 4; ++i) {
    std::vector<std::string> some = lines;
    some[i].erase(some[i].find('}'), 1);
    all.push_back({joined(some), "1:1", "this { is never closed", {}, "job.json"});
    all.back().place = i == 0 ? "1:1" : at(i + 1, lines[i].find('{') + 1);
  }
  return all;
}

/// Bytes that do not belong into a text: at each of several places.
inline OddFiles odd_bytes() {
  OddFiles all;
  const std::string good = "model: {type: mlp}\ndata: {type: clusters}\nrun: {steps: 20}\ntrain_batch_size: 8\n";
  for (std::size_t line = 0, begin = 0; line < 4; ++line, begin = good.find('\n', begin) + 1)
    for (const auto& [bytes, part] :
         std::vector<std::pair<std::string, std::string>>{{std::string(1, '\0'), "a NUL byte"},
                                                          {"\xFF", "not UTF-8"},
                                                          {"\xC3", "not UTF-8"},
                                                          {"\xE2\x82", "not UTF-8"},
                                                          {"\x80", "not UTF-8"}}) {
      OddFile file{good, at(line + 1, 4), part};
      file.text.insert(begin + 3, bytes);
      all.push_back(file);
    }
  for (const char* value :
       {"\"\x1b[2J\"", "\"\x07\"", "\"\x7f\"",
        "\"\xC2\x9B"
        "2J\"",
        "\"\xE2\x80\xAE"
        "x\"",
        "\"\\e[2J\"", "\"a\\0b\"", "\"\\u0085\"", "a/b", "..", "\".hidden\"", "\"\"", "\"a b\"", "\xF0\x9F\x98\x80"})
    all.push_back(job_with({"run", "name"}, value, "run.name"));
  for (const char* value : {"\"a\\eb\"", "\"a\x1b[31m\"", "\"\\x7f\"", "\"a\\nb\"", "\"\\x9b\""})
    all.push_back(job_with({"run", "output_dir"}, value, "it holds a control character"));
  all.push_back(job_with({"", "parameter_groups"}, "[{match: [\"*.\\ebias\"]}]", "it holds a control character"));
  all.back().place = "9:29";
  for (const char* key : {"\x1b[2J", "\x7f", "\xC2\x9B", "\xEF\xBB\xBFseed",
                          "s\xC2\xA0"
                          "eed",
                          "\xE2\x80\x9Cseed\xE2\x80\x9D"}) {
    OddFile file = job_with({"run", key}, "1", "unknown key");
    file.place = "8:3";
    all.push_back(file);
  }
  all.push_back({"\xEF\xBB\xBF" + good, ""});
  all.push_back({"\xFF\xFE" + good, "1:1", "UTF-16"});
  std::string dos = good;
  for (std::size_t i = 0; (i = dos.find('\n', i)) != std::string::npos; i += 2) dos.insert(i, "\r");
  all.push_back({dos, ""});
  all.push_back({"# only a remark\n", "1:1", "the file is empty"});
  all.push_back({"", "1:1", "the file is empty"});
  all.push_back({"\n\n\n", "1:1", "the file is empty"});
  all.push_back({"---\n" + good, ""});
  all.push_back({good + "---\n" + good, "5:1", "a second document"});
  all.push_back({good + "...\nmore: 1\n", "", "a second document"});
  all.back().place = "5:1";
  all.push_back({"steps = 20\nname = x\n", "1:1", "with a colon"});
  all.push_back({"steps:20\nname:x\n", "1:1", "put a space after each colon"});
  all.push_back({"[1, 2]\n", "1:1", "expected a block of keys, got a list"});
  all.push_back({"just words\n", "1:1", "expected a block of keys"});
  all.push_back({"{}", "1:1", "model is required", {}, "job.json"});
  return all;
}

/// Sizes beyond sense, alone and together.
inline OddFiles absurd_sizes() {
  OddFiles all;
  for (const char* value : {"9000000000000000000", "1e18", "2e9"}) {
    all.push_back(job_with({"data", "samples"}, value, "data.samples"));
    all.push_back(job_with({"", "train_micro_batch_size_per_gpu"}, value, "out of range"));
    all.push_back(job_with({"", "gradient_accumulation_steps"}, value, "out of range"));
    all.push_back(job_with({"comm", "ranks"}, value, "out of range"));
    all.push_back(job_with({"comm", "timeout_s"}, value, "out of range"));
    all.push_back(job_with({"comm", "start_timeout_s"}, value, "out of range"));
    all.push_back(job_with({"run", "threads"}, value, "out of range"));
  }
  all.push_back(job_with({"data", "samples"}, "1000000000", "more than the 8.00 GiB"));
  all.push_back({"model: {type: mlp}\ndata: {type: clusters}\nrun: {steps: 1}\ntrain_batch_size: 9000000000000000000\n",
                 "4:19", "from 1 to 1e9"});
  all.push_back({"model: {type: mlp}\ndata: {type: clusters}\nrun: {steps: 9e15}\ntrain_batch_size: 8\n", "3:14",
                 "from 1 to 1e12"});
  all.push_back({"model: {type: mlp, hidden: [1e7]}\ndata: {type: clusters}\nrun: {steps: 9}\ntrain_batch_size: 8\n",
                 "1:29", "from 1 to 1e6"});
  all.push_back(
      {"model: {type: gpt2, block_size: 1e6}\ndata: {type: text, path: x}\nrun: {steps: 9}\n"
       "train_micro_batch_size_per_gpu: 1e6\n",
       "4:33", "symbols at once"});
  all.push_back({std::string(70, '['), "1:33", "nested deeper than 64 levels", {}, "job.yaml"});
  all.push_back({"a: " + std::string(2'000'000, 'x'), "", "more than 1.00 MiB"});
  all.back().place = "job.yaml";
  all.push_back(job_with({"run", std::string(5000, 'k')}, "1", "more than 1024 characters"));
  all.back().place = "8:3";
  all.push_back(job_with({"run", std::string(900, 'k')}, "1", "unknown key"));
  all.back().place = "8:3";
  all.push_back(job_with({"run", "seed"}, std::string(5000, '9'), "does not fit"));
  all.push_back(job_with({"run", "resume"}, std::string(5000, 'r'), "expected one of auto, never"));
  return all;
}

/// Words from elsewhere: a key or value that others have, and what the advice names.
inline OddFiles words_of_others() {
  OddFiles all;
  const auto key = [&all](const Slot& slot, const char* value, const char* advice) {
    OddFile file = job_with(slot, value, advice);
    const std::size_t line = std::stoul(file.place);
    file.place = at(line, slot.section.empty() ? 1 : 3);
    all.push_back(file);
  };
  key({"", "precision"}, "bf16", "bf16: {enabled: true}");
  key({"run", "precision"}, "16", "bf16: {enabled: true}");
  key({"", "epochs"}, "3", "run.steps");
  key({"run", "num_epochs"}, "3", "run.steps");
  key({"model", "hidden_dropout"}, "0.1", "embd_pdrop and resid_pdrop");
  key({"", "dropout"}, "0.1", "embd_pdrop and resid_pdrop");
  key({"model", "n_vocab"}, "50257", "'vocab_size'");
  key({"model", "hidden_size"}, "768", "'hidden'");
  key({"model", "num_layers"}, "12", "n_layer");
  key({"model", "num_heads"}, "12", "n_head");
  key({"model", "seq_len"}, "128", "block_size");
  key({"", "warmup_steps"}, "100", "warmup_num_steps");
  key({"", "batch"}, "auto", "train_batch_size");
  key({"", "batch_size"}, "8", "train_batch_size");
  key({"", "lr"}, "1e-3", "optimizer.params.lr");
  key({"", "learning_rate"}, "1e-3", "optimizer.params.lr");
  key({"", "max_grad_norm"}, "1", "gradient_clipping");
  key({"", "lr_scheduler"}, "{type: WarmupLR}", "did you mean 'scheduler'?");
  key({"optimizer", "lr"}, "1e-3", "params: {lr: ...}");
  key({"optimizer", "weight_decay"}, "0.1", "params: {weight_decay: ...}");
  all.push_back(job_with({"", "optimizer"}, "Adam", "write optimizer: {type: Adam}"));
  all.push_back(job_with({"", "optimizer"}, "sgd", "write optimizer: {type: SGD}"));
  all.push_back(job_with({"", "scheduler"}, "cosine", "WarmupCosineLR"));
  all.push_back(job_with({"", "scheduler"}, "WarmupLR", "write scheduler: {type: WarmupLR}"));
  all.push_back(job_with({"", "fp16"}, "true", "write fp16: {enabled: true}"));
  all.push_back(job_with({"scheduler", "type"}, "CosineAnnealing", "WarmupCosineLR"));
  all.push_back(job_with({"scheduler", "type"}, "cosine", "WarmupCosineLR"));
  all.push_back(job_with({"scheduler", "type"}, "linear", "WarmupDecayLR"));
  all.push_back(job_with({"scheduler", "type"}, "polynomial", "PolynomialDecay"));
  all.push_back(job_with({"optimizer", "type"}, "adamw_torch", "AdamW"));
  all.push_back(
      job_with({"optimizer", "type"}, "RMSprop", "this version has Adam, AdamW, SGD, Lion, Adagrad, Lamb and Muon"));
  all.push_back(job_with({"", "steps_per_print"}, "auto", "leave the key out"));
  all.push_back(job_with({"zero_optimization", "stage"}, "4", "0 to 3"));
  const std::string gpt2 = "model: {type: gpt2}\nrun: {steps: 1}\ntrain_batch_size: 1\ndata: {type: text, path: x, ";
  for (const char* name : {"bpe", "tiktoken"})
    all.push_back({gpt2 + "tokenizer: " + name + "}\n", "4:40", "GPT-2's is called gpt2 here"});
  all.push_back({gpt2 + "tokenizer: gpt2, vocab: v.json}\n", "4:40", "needs data.merges"});
  return all;
}

/// On the command line.
inline OddFiles odd_options() {
  OddFiles all;
  const std::string good = "model: {type: mlp}\ndata: {type: clusters}\nrun: {steps: 20}\ntrain_batch_size: 8\n";
  for (const char* option : {"run.steps",
                             "=3",
                             "run.steps=",
                             "run.steps=x",
                             "run.steps=[1",
                             "run.steps={",
                             "run.steps=\"3",
                             "run.steps=3 4",
                             "run.steps=1,5",
                             "run.steps=${N}",
                             "run.steps.x=1",
                             "run..steps=1",
                             ".run=1",
                             "run=3",
                             "model=mlp",
                             "run.name=\x1b[2J",
                             "run.name=a\nb",
                             "x=1",
                             "optimizer.params.lr=-1",
                             "optimizer.params.learning_rate=1",
                             "scheduler.params.warmup_num_steps=3",
                             "parameter_groups.0.lr=1",
                             "parameter_groups=[{lr: 1}]",
                             "train_batch_size=auto",
                             "zero_optimization.stage=4",
                             "zero_optimization=stage",
                             "deepspeed=no.json"})
    all.push_back({good, fmt::format("--set {}", option), "error", {option}});
  for (const char* option : {"optimizer.params.lr=0.5", "run.steps=1e3", "scheduler=null", "run.name=2024-05",
                             "comm.timeout_s=1e2", "optimizer.params.betas=[0.8, 0.9]"})
    all.push_back({good, "", "", {option}});
  return all;
}

/// What looks odd and is right.
inline OddFiles unusual_but_right() {
  OddFiles all;
  for (const char* value : {"1e3", "+7", "5.", "0", "9007199254740992"}) {
    all.push_back(job_with({"run", "seed"}, value, ""));
    all.push_back(json_with({"run", "seed"}, value, ""));
  }
  for (const char* value : {"it.s", "\"quoted\"", "'single'", "2024-05-01", "a_b-c.d # remark", "null_", "true1"})
    all.push_back(job_with({"run", "name"}, value, ""));
  for (const char* value : {"it's", "'it''s here'", "\"a \\\"b\\\"\"", "s3://x/a#b", "a: b"}) {
    const std::string text = std::string(value) == "a: b" ? "'a: b'" : value;
    all.push_back(job_with({"run", "output_dir"}, text, ""));
  }
  for (const char* value : {"null", "~", ""}) all.push_back(job_with({"", "steps_per_print"}, value, ""));
  for (const char* value : {"null", "{}", "{params: {lr: 1}}", "{type: ADAM}"})
    all.push_back(job_with({"", "optimizer"}, value, ""));
  const std::string json = "\"model\": {\"type\": \"mlp\"}, \"data\": {\"type\": \"clusters\"},";
  for (const std::string& rest : std::vector<std::string>{
           "\"run\": {\"steps\": 2}, \"train_batch_size\": 8,}",
           "\"run\": {\"steps\": 2}, # it's \"quoted\n \"train_batch_size\": 8}",
           "\"run\": {steps: 2}, // [ {\n train_batch_size: 8}", "\"run\":{\"steps\":2},\"train_batch_size\":8}",
           "\t\"run\": {\t\"steps\": 2}, /* \" */ \"train_batch_size\": 8}",
           "\"run\": {\"steps\": 2, \"name\": \"\\u0061\"}, \"train_batch_size\": 8}"})
    all.push_back({"{" + json + rest, "", "", {}, "job.json"});
  for (OddFile& file : all) file.place.clear();
  return all;
}

inline OddFiles odd_files() {
  OddFiles all;
  for (const OddFiles& some : {wrong_values(), broken_structure(), odd_bytes(), absurd_sizes(), words_of_others(),
                               odd_options(), unusual_but_right()})
    all.insert(all.end(), some.begin(), some.end());
  return all;
}

}  // namespace lockstep::job
