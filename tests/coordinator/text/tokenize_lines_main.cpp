// tokenize_lines (--json tokenizer.json | --model tokenizer.model | --gguf spec.binpb): one JSON string a line on stdin, one JSON array
// [ids, decoded text] a line on stdout. compare_corpus.py drives it.
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "coordinator/text/tokenizer.h"

int main(int argc, char** argv) {
  using namespace accrete;
  if (argc != 3) return std::cerr << "usage: tokenize_lines --json|--model|--spec FILE\n", 2;
  std::ifstream in(argv[2], std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(in)), {});
  const std::string kind = argv[1];
  rpc::TokenizerSpec spec;
  if (kind == "--json") spec.set_tokenizer_json(bytes);
  else if (kind == "--model") spec.set_sentencepiece(bytes);
  else if (!spec.ParseFromString(bytes)) return std::cerr << argv[2] << ": no TokenizerSpec\n", 1;
  const auto tokenizer = coordinator::Tokenizer::make(spec);
  std::string line;
  while (std::getline(std::cin, line)) {
    const std::vector<int32_t> ids = tokenizer->encode(nlohmann::json::parse(line).get<std::string>());
    std::cout << nlohmann::json::array({ids, tokenizer->decode(ids, false)}).dump() << "\n";
  }
}
