#pragma once

#include <string_view>

// One function a format, each in a file of its name.
namespace lockstep::fuzz {

void job(std::string_view input);          ///< a job file, YAML or JSON
void ds_config(std::string_view input);    ///< a DeepSpeed configuration, imported
void safetensors(std::string_view input);  ///< a whole safetensors file
void manifest(std::string_view input);     ///< a checkpoint's manifest.json
void metrics(std::string_view input);      ///< a run's metrics.jsonl and starts.jsonl
void tokens(std::string_view input);       ///< a shard of token ids
void idx(std::string_view input);          ///< an IDX file, compressed or not
void idx_gz(std::string_view input);       ///< how many bytes are cut off, then what is compressed to an IDX.gz file
void csv(std::string_view input);          ///< a table of numbers
void bpe(std::string_view input);  ///< vocab.json, NUL, merges.txt, NUL, a text; an empty vocabulary stands for bytes

}  // namespace lockstep::fuzz
