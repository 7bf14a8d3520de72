// Small vocabularies and what the tokenizers and sentencepiece packages make of a corpus with them (make_golden.py).
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "coordinator/text/chat_template.h"
#include "coordinator/text/detokenizer.h"
#include "coordinator/text/stop_checker.h"
#include "coordinator/text/tokenizer.h"

namespace accrete::coordinator {
namespace {

std::string file(const std::string& name) {
  std::ifstream in(ACCRETE_SOURCE_DIR "/tests/golden/tokenizer/" + name, std::ios::binary);
  return std::string((std::istreambuf_iterator<char>(in)), {});
}

void check_cases(const Tokenizer& tokenizer, const std::string& name) {
  std::istringstream lines(file(name));
  std::string line;
  int cases = 0;
  while (std::getline(lines, line)) {
    const nlohmann::json one = nlohmann::json::parse(line);
    const auto text = one[0].get<std::string>();
    const std::vector<int32_t> ids = tokenizer.encode(text);
    EXPECT_EQ(ids, one[1].get<std::vector<int32_t>>()) << text;
    EXPECT_EQ(tokenizer.decode(ids, false), one[2].get<std::string>()) << text;
    IncrementalDetokenizer detokenizer(tokenizer, false);
    std::string pieces;
    for (int32_t id : ids) {
      const std::string piece = detokenizer.push(id);
      EXPECT_NO_THROW(nlohmann::json(piece).dump()) << "a piece of " << text << " is not UTF-8";
      pieces += piece;
    }
    EXPECT_EQ(pieces + detokenizer.flush(), one[2].get<std::string>()) << text;
    ++cases;
  }
  EXPECT_GT(cases, 300);
}

TEST(tokenizer_golden, smollm2_form) {
  rpc::TokenizerSpec spec;
  spec.set_tokenizer_json(file("smollm2.tokenizer.json"));
  check_cases(*Tokenizer::make(spec), "smollm2.cases.jsonl");
}

TEST(tokenizer_golden, llama_3_form) {
  rpc::TokenizerSpec spec;
  spec.set_tokenizer_json(file("llama3.tokenizer.json"));
  check_cases(*Tokenizer::make(spec), "llama3.cases.jsonl");
}

TEST(tokenizer_golden, sentencepiece_form) {
  rpc::TokenizerSpec spec;
  spec.set_sentencepiece(file("llama2.tokenizer.model"));
  check_cases(*Tokenizer::make(spec), "llama2.cases.jsonl");
}

TEST(tokenizer, wrong_files_are_refused_by_their_field) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "parse error"}, {"[]", "no object"}, {"{}", "model"}, {R"({"model": {"type": "WordPiece"}})", "model.type"},
      {R"({"model": {"type": "BPE", "vocab": {}, "merges": []}})", "model.vocab"},
      {R"({"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}})", "model.vocab"},
      {R"({"model": {"type": "BPE", "vocab": {"a": 4000000000}, "merges": []}})", "model.vocab"},
      {R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}})", "model.merges"},
      {R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": []}})", "model.vocab"},
      {R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "pre_tokenizer": {"type": "Mystery"}})", "pre_tokenizer.type"},
      {R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "normalizer": {"type": "NFKC"}})", "normalizer.type"},
  };
  for (const auto& [text, field] : cases) {
    rpc::TokenizerSpec spec;
    spec.set_tokenizer_json(text);
    try {
      Tokenizer::make(spec);
      ADD_FAILURE() << text << " was taken";
    } catch (const TokenizerError& error) {
      EXPECT_NE(std::string(error.what()).find(field), std::string::npos) << text << ": " << error.what();
    }
  }
}

TEST(stop_checker, holds_back_beginnings_and_cuts_at_matches) {
  StopChecker stops({"END", "\n\n"});
  EXPECT_EQ(stops.push("one E").text, "one ");
  EXPECT_EQ(stops.push("N").text, "");
  EXPECT_EQ(stops.push("ough\n").text, "ENough");
  const StopChecker::Result last = stops.push("\nmore");
  EXPECT_TRUE(last.stopped);
  EXPECT_EQ(last.text, "");
  StopChecker open({"END"});
  EXPECT_EQ(open.push("the EN").text, "the ");
  EXPECT_EQ(open.flush(), "EN");
}

TEST(chat_template, known_families_and_unknown_ones) {
  rpc::TokenizerSpec spec;
  const std::vector<Message> messages = {{"user", "Hi"}};
  spec.set_chat_template("{% if loop.first %}{{ '<|im_start|>system\nBe kind<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role']}}");
  EXPECT_EQ(ChatTemplate::make(spec).render(messages),
            "<|im_start|>system\nBe kind<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  spec.set_bos_token("<s>");
  spec.set_eos_token("</s>");
  EXPECT_EQ(ChatTemplate::make(spec, "llama-2").render({{"system", "S"}, {"user", " a "}, {"assistant", "b"}, {"user", "c"}}),
            "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\n a [/INST] b </s><s>[INST] c [/INST]");
  EXPECT_EQ(ChatTemplate::make(spec, "zephyr").render(messages), "<|user|>\nHi</s>\n<|assistant|>\n");
  spec.set_bos_token("<|begin_of_text|>");
  EXPECT_EQ(ChatTemplate::make(spec, "llama-3").render(messages),
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n");
  spec.set_chat_template("{{ mystery }}");
  EXPECT_THROW(ChatTemplate::make(spec), ChatTemplateError);
  EXPECT_THROW(ChatTemplate::make(spec, "nonsense"), ChatTemplateError);
  try {
    ChatTemplate::make(spec, "llama-2").render({{"user", "a"}, {"user", "b"}});
    FAIL();
  } catch (const MessageError& error) {
    EXPECT_EQ(error.param, "messages[1].role");
  }
}

}  // namespace
}  // namespace accrete::coordinator
