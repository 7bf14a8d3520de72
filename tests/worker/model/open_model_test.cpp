#include <gtest/gtest.h>

#include "tests/worker/model/model_files.h"

namespace accrete::worker {
namespace {

using namespace testing;  // NOLINT: the makers of test files

std::string refusal(const std::string& model, const std::string& format = "auto") {
  OpenOptions options;
  options.load_format = format;
  return error_of([&] { open_model(model, options); });
}

TEST(OpenModel, FindsTheFormat) {
  const TempDir directory;
  write_tiny_model(directory);
  EXPECT_EQ(open_model(directory.path(), {})->describe().find("safetensors"), 0u);
  const std::string gguf = directory.write("model.bin", tiny_gguf().build());
  EXPECT_EQ(open_model(gguf, {})->describe().find("GGUF"), 0u);
  OpenOptions dummy;
  dummy.load_format = "dummy";
  EXPECT_EQ(open_model("tiny", dummy)->describe().find("dummy weights"), 0u);
  EXPECT_EQ(open_model(directory.path(), dummy)->describe().find("dummy weights"), 0u);
}

TEST(OpenModel, SaysWhatIsWrong) {
  const TempDir directory;
  EXPECT_NE(refusal("").find("no model was named"), std::string::npos);
  EXPECT_EQ(refusal("/no/such/model"), "/no/such/model: no such file or directory");
  EXPECT_NE(refusal(directory.path()).find("a directory without config.json"), std::string::npos);
  const std::string gguf = directory.write("a.gguf", "GGUF");
  EXPECT_NE(refusal(directory.path()).find("to load " + gguf + ", name the file"), std::string::npos);
  EXPECT_NE(refusal(directory.path(), "gguf").find("needs a file"), std::string::npos);
  EXPECT_NE(refusal(gguf).find("version"), std::string::npos);
  const std::string text = directory.write("text.txt", "hello");
  EXPECT_NE(refusal(text).find("neither a Hugging Face directory nor a GGUF file"), std::string::npos);
  EXPECT_NE(refusal(text, "gguf").find("not a GGUF file"), std::string::npos);
  EXPECT_NE(refusal(directory.write("empty", "")).find("neither"), std::string::npos);
  EXPECT_NE(refusal(gguf, "pickle").find("must be auto, gguf or dummy"), std::string::npos);
}

TEST(OpenModel, ListsTheDummyShapes) {
  const std::string message = refusal("llama-9", "dummy");
  EXPECT_NE(message.find("\"llama-9\""), std::string::npos);
  EXPECT_NE(message.find("llama-2-7b, llama-2-13b, llama-2-70b, llama-3-8b, llama-3-70b, tiny"), std::string::npos);
  const TempDir directory;
  EXPECT_NE(refusal(directory.path(), "dummy").find("no config.json"), std::string::npos);
}

}  // namespace
}  // namespace accrete::worker
