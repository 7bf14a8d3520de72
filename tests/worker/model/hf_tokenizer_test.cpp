#include "worker/model/hf_tokenizer.h"

#include <gtest/gtest.h>

#include "tests/worker/model/model_files.h"

namespace accrete::worker {
namespace {

using namespace testing;  // NOLINT: the makers of test files

constexpr const char* kByteLevel = R"({"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Sequence",
  "pretokenizers": [{"type": "Split"}, {"type": "ByteLevel"}]}, "post_processor": null, "decoder": {"type": "ByteLevel"},
  "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}})";

constexpr const char* kWithBos = R"({"pre_tokenizer": {"type": "ByteLevel"}, "model": {"type": "BPE", "vocab": {}},
  "post_processor": {"type": "Sequence", "processors": [{"type": "ByteLevel"}, {"type": "TemplateProcessing",
  "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]}]}})";

// A sentencepiece model in Hugging Face's form: BPE, but over characters.
constexpr const char* kCharacters =
    R"({"pre_tokenizer": null, "decoder": {"type": "Sequence", "decoders": [{"type": "Replace"}]},
  "model": {"type": "BPE", "vocab": {}, "byte_fallback": true}})";

TEST(HfTokenizer, PrefersByteLevelBpe) {
  const TempDir directory;
  directory.write("tokenizer.json", kByteLevel);
  directory.write("tokenizer.model", "sentencepiece bytes");
  const rpc::TokenizerSpec spec = read_hf_tokenizer(directory.path());
  EXPECT_EQ(spec.tokenizer_json(), kByteLevel);
  EXPECT_FALSE(spec.add_bos_token());
}

TEST(HfTokenizer, FallsBackToSentencepiece) {
  const TempDir directory;
  directory.write("tokenizer.json", kCharacters);
  directory.write("tokenizer.model", std::string("bytes\0\xff", 7));
  const rpc::TokenizerSpec spec = read_hf_tokenizer(directory.path());
  EXPECT_EQ(spec.sentencepiece(), std::string("bytes\0\xff", 7));
  EXPECT_TRUE(spec.add_bos_token());
}

TEST(HfTokenizer, FindsWhatThePostProcessorAdds) {
  const TempDir directory;
  directory.write("tokenizer.json", kWithBos);
  EXPECT_TRUE(read_hf_tokenizer(directory.path()).add_bos_token());
  EXPECT_FALSE(read_hf_tokenizer(directory.path()).add_eos_token());
  directory.write("tokenizer_config.json", R"({"add_bos_token": false})");
  EXPECT_FALSE(read_hf_tokenizer(directory.path()).add_bos_token());
}

TEST(HfTokenizer, ReadsTheTokenizerConfig) {
  const TempDir directory;
  directory.write("tokenizer.json", kByteLevel);
  directory.write("tokenizer_config.json",
                  R"({"chat_template": "plain", "bos_token": "<s>", "eos_token": {"content": "</s>"},
    "added_tokens_decoder": {"7": {"content": "<x>", "special": true, "lstrip": true, "rstrip": false, "normalized": false},
                             "12": {"content": "yy"}}, "add_eos_token": true})");
  const rpc::TokenizerSpec spec = read_hf_tokenizer(directory.path());
  EXPECT_EQ(spec.chat_template(), "plain");
  EXPECT_EQ(spec.bos_token(), "<s>");
  EXPECT_EQ(spec.eos_token(), "</s>");
  EXPECT_TRUE(spec.add_eos_token());
  ASSERT_EQ(spec.added_tokens_size(), 2);
  const rpc::AddedToken& token = spec.added_tokens(0).id() == 7 ? spec.added_tokens(0) : spec.added_tokens(1);
  EXPECT_EQ(token.id(), 7);
  EXPECT_EQ(token.content(), "<x>");
  EXPECT_TRUE(token.special());
  EXPECT_TRUE(token.lstrip());
  EXPECT_FALSE(token.normalized());
}

TEST(HfTokenizer, ChoosesAmongNamedTemplates) {
  const TempDir directory;
  directory.write("tokenizer_config.json",
                  R"({"chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]})");
  EXPECT_EQ(read_hf_tokenizer(directory.path()).chat_template(), "d");
  directory.write("tokenizer_config.json", R"({"chat_template": [{"name": "rag", "template": "r"}]})");
  EXPECT_EQ(read_hf_tokenizer(directory.path()).chat_template(), "r");
  directory.write("chat_template.jinja", "file");
  EXPECT_EQ(read_hf_tokenizer(directory.path()).chat_template(), "file");
}

TEST(HfTokenizer, IsUnsetWithoutFiles) {
  const TempDir directory;
  EXPECT_EQ(read_hf_tokenizer(directory.path()).kind_case(), rpc::TokenizerSpec::KIND_NOT_SET);
}

struct BadFile {
  const char* name;
  const char* file;
  std::string content;
  std::string message;
};

class HfTokenizerRefused : public ::testing::TestWithParam<BadFile> {};

TEST_P(HfTokenizerRefused, NamesTheFile) {
  const TempDir directory;
  directory.write(GetParam().file, GetParam().content);
  const std::string message = error_of([&] { read_hf_tokenizer(directory.path()); });
  EXPECT_NE(message.find(GetParam().file), std::string::npos) << message;
  EXPECT_NE(message.find(GetParam().message), std::string::npos) << message;
}

INSTANTIATE_TEST_SUITE_P(
    Files, HfTokenizerRefused,
    ::testing::Values(
        BadFile{"tokenizer_not_json", "tokenizer.json", "{\"model\"", "not valid JSON"},
        BadFile{"tokenizer_is_a_list", "tokenizer.json", "[]", "model is missing"},
        BadFile{"tokenizer_nested", "tokenizer.json", std::string(5000, '['), "nested too deep"},
        BadFile{"model_is_a_number", "tokenizer.json", R"({"model": 3})", "model is missing"},
        BadFile{"only_characters", "tokenizer.json", kCharacters, "no byte-level BPE"},
        BadFile{"unigram", "tokenizer.json", R"({"model": {"type": "Unigram"}})", "\"Unigram\""},
        BadFile{"type_is_a_number", "tokenizer.json", R"({"model": {"type": 4}})", "no byte-level BPE"},
        BadFile{"sentencepiece_too_large", "tokenizer.model", std::string(17 << 20, 'x'), "at most"},
        BadFile{"config_not_json", "tokenizer_config.json", "nope", "not valid JSON"},
        BadFile{"config_is_a_list", "tokenizer_config.json", "[]", "must be a JSON object"},
        BadFile{"template_is_a_number", "tokenizer_config.json", R"({"chat_template": 3})",
                "chat_template must be a string"},
        BadFile{"template_list_of_strings", "tokenizer_config.json", R"({"chat_template": ["x"]})", "chat_template"},
        BadFile{"token_is_a_list", "tokenizer_config.json", R"({"bos_token": []})", "bos_token must be a string"},
        BadFile{"added_id_is_text", "tokenizer_config.json", R"({"added_tokens_decoder": {"x": {}}})",
                "\"x\" is no token id"},
        BadFile{"added_id_is_negative", "tokenizer_config.json", R"({"added_tokens_decoder": {"-1": {}}})",
                "no token id"},
        BadFile{"added_id_too_large", "tokenizer_config.json", R"({"added_tokens_decoder": {"99999999999": {}}})",
                "no token id"},
        BadFile{"added_is_text", "tokenizer_config.json", R"({"added_tokens_decoder": {"3": "x"}})",
                "must be a JSON object"},
        BadFile{"template_file_too_large", "chat_template.jinja", std::string(2 << 20, 'x'), "at most"},
        BadFile{"template_file_not_utf8", "chat_template.jinja", "\xff\xfe", "not UTF-8"}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace accrete::worker
