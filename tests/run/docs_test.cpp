// docs/model.md and docs/data.md are precise enough to write a model's start again; their numbers are those of the
// code.

#include <gmock/gmock.h>

#include "nn/gpt2.hpp"
#include "run/generate.hpp"
#include "tests/support/source_dir.hpp"
#include "tests/support/training.hpp"

namespace lockstep::run {
namespace {

using ::testing::HasSubstr;

/// The page with its line breaks as spaces.
std::string page(const std::string& name) {
  std::ifstream file(source_dir() + "/docs/" + name);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  for (char& c : text)
    if (c == '\n') c = ' ';
  return text;
}

/// The first elements of the embedding as an engine with seed 1 starts with them.
std::vector<float> first_of_the_embedding(std::size_t count) {
  const testing::ScratchFolder folder;
  const testing::Task task = testing::gpt_task(folder);
  engine::EngineOptions options = testing::engine_defaults(task, 1);
  options.seed = 1;
  const auto device = make_cpu_device();
  const auto comm = comm::make_single();
  const auto model = task.model();
  engine::Engine engine(*model, *comm, {.device = device.get(), .kernels = &kernels::cpu_table(), .threads = 1},
                        options);
  std::vector<float> values(count);
  for (const engine::FlatLayout::Slice& slice : engine.layout().slices())
    if (slice.param == 0)
      engine.read_range("master", static_cast<std::int64_t>(slice.begin), static_cast<std::int64_t>(count),
                        values.data());
  return values;
}

TEST(ModelDocs, AParameterStartsAsThePageSays) {
  // Computed from the page alone by a program in another language.
  const std::vector<double> expected = {0.03396260834601198, -0.024597654784048455, -0.02856023717310025,
                                        0.009926488316382256};
  const std::vector<float> values = first_of_the_embedding(4);

  std::string shown;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(values[i], static_cast<float>(expected[i])) << i;
    shown += fmt::format("{}{:.8f}", i == 0 ? "" : ", ", values[i]);
  }
  EXPECT_THAT(page("model.md"), HasSubstr("lane 0 at stddev 0.02 are " + shown + "."));
}

/// The lane that docs/model.md gives to a parameter of block i.
struct Lane {
  int lane;
  std::string name;
  double stddev;  ///< 0: constant
};

TEST(ModelDocs, LanesOfGpt2AreThoseOfThePage) {
  constexpr int blocks = 3;
  const auto model = nn::make_gpt2({.n_layer = blocks, .n_head = 2, .n_embd = 8, .block_size = 4, .vocab_size = 5});
  const double residual = 0.02 / std::sqrt(2.0 * blocks);
  std::vector<Lane> lanes = {{0, "transformer.wte.weight", 0.02},
                             {1, "transformer.wpe.weight", 0.02},
                             {2 + 12 * blocks, "transformer.ln_f.weight", 0},
                             {3 + 12 * blocks, "transformer.ln_f.bias", 0}};
  for (int i = 0; i < blocks; ++i) {
    const std::string block = fmt::format("transformer.h.{}.", i);
    const Lane weights[] = {{2, "ln_1", 0}, {4, "attn.c_attn", 0.02}, {6, "attn.c_proj", residual},
                            {8, "ln_2", 0}, {10, "mlp.c_fc", 0.02},   {12, "mlp.c_proj", residual}};
    for (const Lane& weight : weights) {
      lanes.push_back({weight.lane + 12 * i, block + weight.name + ".weight", weight.stddev});
      lanes.push_back({weight.lane + 12 * i + 1, block + weight.name + ".bias", 0});
    }
  }

  ASSERT_EQ(model->parameters().size(), lanes.size());
  for (const Lane& lane : lanes) {
    const nn::ParameterSpec& spec = model->parameters()[static_cast<std::size_t>(lane.lane)];
    EXPECT_EQ(spec.name, lane.name);
    EXPECT_EQ(spec.init == nn::Init::normal ? spec.stddev : 0, lane.stddev) << spec.name;
  }
}

TEST(DataDocs, ThePageNamesTheDefaultsOfGenerate) {
  const GenerateOptions options;
  const std::string text = page("data.md");

  EXPECT_EQ(options.prompt, "\n");
  EXPECT_THAT(text, HasSubstr("`--prompt` (a line feed by default)"));
  EXPECT_THAT(text, HasSubstr(fmt::format("`--tokens` {} symbols", options.tokens)));
  EXPECT_THAT(text, HasSubstr(fmt::format("`--temperature` {} among", options.temperature)));
  EXPECT_THAT(text, HasSubstr(fmt::format("(`--top-k` {})", options.top_k)));
  EXPECT_THAT(text, HasSubstr(fmt::format("with `--seed` {}.", options.seed)));
}

}  // namespace
}  // namespace lockstep::run
