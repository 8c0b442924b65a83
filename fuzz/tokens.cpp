#include "data/tokens.hpp"

#include "fuzz/target.hpp"
#include "fuzz/targets.hpp"

namespace lockstep::fuzz {

void tokens(std::string_view input) {
  static InputFile file("input.bin");
  file.set(input);
  constexpr int vocabulary = 300;
  for (const auto format : {data::TokenFormat::detect, data::TokenFormat::llm_c, data::TokenFormat::bare})
    (void)accepts(file.path(), [&] {
      const auto dataset = data::make_tokens(
          {.path = file.path(), .format = format, .vocab_size = vocabulary, .validation_fraction = 0.25, .length = 3});
      data::HostBatch batch;
      dataset->train_batch(0, 5, batch);
      for (const std::int32_t token : batch.tokens)
        promise(token >= 0 && token < vocabulary, "no id of the vocabulary");
      dataset->eval_batch(0, dataset->eval_samples(), batch);
      for (const std::int32_t token : batch.targets)
        promise(token >= -1 && token < vocabulary, "no id to be predicted");
    });
}

}  // namespace lockstep::fuzz
