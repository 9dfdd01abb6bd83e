#include "testing/golden.h"

#include "dsa/error.h"
#include "dsa/safetensors.h"

namespace dsa::testing {

namespace {

class CaseReader {
  public:
    explicit CaseReader(const std::filesystem::path& path) : file_(path) {}

    bool has(const char* name) const { return file_.contains(name); }
    const std::vector<int64_t>& shape(const char* name) const { return file_.at(name).shape; }

    // The shape must be `expected`; an optional tensor that is absent gives an empty array.
    std::vector<float> floats(const char* name, const std::vector<int64_t>& expected,
                              bool optional = false) const {
        if (optional && !has(name)) return {};
        check_shape(name, expected);
        return file_.floats(name);
    }
    template <typename T>
    std::vector<T> integers(const char* name, const std::vector<int64_t>& expected,
                            bool optional = false) const {
        if (optional && !has(name)) return {};
        check_shape(name, expected);
        const auto values = file_.integers(name);
        std::vector<T> result;
        result.reserve(values.size());
        for (const int64_t v : values) result.push_back(static_cast<T>(v));
        return result;
    }

  private:
    void check_shape(const char* name, const std::vector<int64_t>& expected) const {
        if (shape(name) != expected)
            throw_error(ErrorCode::kInvalidModel, file_.path().string(), ": ", name,
                        " has another shape than the tensors beside it");
    }

    SafetensorsFile file_;
};

}  // namespace

GoldenCase load_golden(const std::string& name) {
    const std::filesystem::path root = std::filesystem::path(DSA_TEST_DATA) / "golden";
    const bool tiny = name.rfind("tiny-", 0) == 0;
    const CaseReader file(root / name / "case.safetensors");

    GoldenCase c;
    c.name = name;
    c.model = tiny ? root / "checkpoints" / name : std::filesystem::path(DSA_MODELS) / "dsa-mini";
    c.S = file.shape("input_ids").at(0);
    c.R = file.shape("rows").at(0);
    c.V = file.shape("logits").at(1);
    c.L = file.shape("hidden").at(0);
    c.H = file.shape("hidden").at(2);
    if (file.has("topk")) c.k = file.shape("topk").at(2);
    if (file.has("topk_decode")) c.decode_steps = file.shape("topk_decode").at(1);
    if (file.has("experts")) c.L_moe = file.shape("experts").at(0);
    if (file.has("experts")) c.K = file.shape("experts").at(2);
    if (file.has("index_rows")) c.Q = file.shape("index_rows").at(0);
    const int64_t n = file.shape("greedy_ids").at(0);
    const int64_t mtp_rows = file.has("mtp_rows") ? file.shape("mtp_rows").at(0) : 0;

    c.input_ids = file.integers<int32_t>("input_ids", {c.S});
    c.greedy_ids = file.integers<int32_t>("greedy_ids", {n});
    c.rows = file.integers<int64_t>("rows", {c.R});
    c.logits = file.floats("logits", {c.R, c.V});
    c.hidden = file.floats("hidden", {c.L, c.R, c.H});
    c.nll = file.floats("nll", {c.S - 1});
    c.topk = file.integers<int32_t>("topk", {c.L, c.R, c.k}, true);
    c.topk_decode = file.integers<int32_t>("topk_decode", {c.L, c.decode_steps, c.k}, true);
    c.logits_decode = file.floats("logits_decode", {n, c.V}, true);
    c.experts = file.integers<int32_t>("experts", {c.L_moe, c.S, c.K}, true);
    c.index_rows = file.integers<int64_t>("index_rows", {c.Q}, true);
    c.index_scores = file.floats("index_scores", {c.L, c.Q, c.S}, true);
    c.mtp_rows = file.integers<int64_t>("mtp_rows", {mtp_rows}, true);
    c.mtp_logits = file.floats("mtp_logits", {mtp_rows, c.V}, true);
    return c;
}

}  // namespace dsa::testing
