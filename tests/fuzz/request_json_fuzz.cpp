// Bodies of the two completion endpoints: taken, or refused with a FieldError.
#include "coordinator/api/request_json.h"

using namespace accrete::coordinator;  // NOLINT: a program of its own

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  try {
    parse_completion_request(body);
  } catch (const FieldError&) {
  }
  try {
    parse_chat_request(body);
  } catch (const FieldError&) {
  }
  return 0;
}
