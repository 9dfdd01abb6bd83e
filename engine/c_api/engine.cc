// The C interface: engine and text.

#include <string>
#include <vector>

#include "dsa/chat.h"
#include "engine/c_api/support.h"

namespace dsa::c_api {
namespace {

EngineOptions engine_options(const dsa_engine_options* from) {
    const dsa_engine_options o = read_struct(from, "options");
    EngineOptions options;
    options.threads = o.threads;
    options.context_length = o.context_length;
    if (o.prefill_chunk != 0) options.prefill_chunk = o.prefill_chunk;
    options.memory_limit = o.memory_limit;
    if (o.isa != nullptr) options.isa = o.isa;
    switch (o.precision) {
        case DSA_PRECISION_BF16:
            options.precision = Precision::kBf16;
            break;
        case DSA_PRECISION_FP8:
            options.precision = Precision::kFp8;
            break;
        case DSA_PRECISION_INT8:
            options.precision = Precision::kInt8;
            break;
        default:
            throw_error(ErrorCode::kInvalidArgument, "options.precision is ", o.precision,
                        ", expected DSA_PRECISION_BF16 (0), DSA_PRECISION_FP8 (1) or "
                        "DSA_PRECISION_INT8 (2)");
    }
    return options;
}

Message message_at(const dsa_message* messages, size_t stride, size_t index) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(messages) + index * stride;
    const dsa_message m = read_struct(reinterpret_cast<const dsa_message*>(bytes), "message");
    Message message;
    switch (m.role) {
        case DSA_ROLE_SYSTEM:
            message.role = Role::kSystem;
            break;
        case DSA_ROLE_USER:
            message.role = Role::kUser;
            break;
        case DSA_ROLE_ASSISTANT:
            message.role = Role::kAssistant;
            break;
        case DSA_ROLE_DOCUMENT:
            message.role = Role::kDocument;
            break;
        default:
            throw_error(ErrorCode::kInvalidArgument, "message ", index, ": role is ", m.role,
                        ", expected DSA_ROLE_SYSTEM (0) to DSA_ROLE_DOCUMENT (3)");
    }
    if (m.content != nullptr) message.content = m.content;
    const auto ids = array(m.content_ids, m.num_content_ids, "message.content_ids");
    message.content_ids.assign(ids.begin(), ids.end());
    return message;
}

std::vector<Message> messages_of(const dsa_message* messages, size_t count) {
    std::vector<Message> result;
    if (count == 0) return result;
    const size_t stride = required(messages, "messages").size;
    for (size_t i = 0; i < count; ++i) result.push_back(message_at(messages, stride, i));
    return result;
}

}  // namespace
}  // namespace dsa::c_api

using namespace dsa::c_api;

dsa_status dsa_plan_memory(const char* model, const dsa_engine_options* options,
                           dsa_memory_plan* plan) {
    return guarded([&] {
        required(model, "model");
        const dsa::MemoryPlan p =
            dsa::plan_memory(dsa::inspect_model(model), engine_options(options));
        write_struct({sizeof(dsa_memory_plan), p.context_length, p.total(), p.weights + p.copies,
                      p.kv_cache, p.scratch + p.tables, p.process},
                     plan, "plan");
    });
}

dsa_status dsa_engine_open(const char* model, const dsa_engine_options* options,
                           dsa_engine** engine) {
    return guarded([&] {
        required(model, "model");
        dsa_engine*& out = required(engine, "engine");
        out = engines().add(std::make_shared<dsa::Engine>(model, engine_options(options)));
    });
}

dsa_status dsa_engine_close(dsa_engine* engine) {
    return guarded([&] { engines().remove(engine, "engine")->close(); });
}

dsa_status dsa_engine_get_info(dsa_engine* engine, dsa_engine_info* info) {
    return guarded([&] {
        const auto e = engine_of(engine);
        dsa_engine_info i{};
        i.vocab_size = e->info().config.vocab_size;
        i.context_length = e->options().context_length;
        i.num_layers = e->info().config.num_hidden_layers;
        i.parameters = e->info().parameters;
        i.threads = e->options().threads;
        i.has_tokenizer = e->has_tokenizer();
        e->options().isa.copy(i.isa, sizeof(i.isa) - 1);
        write_struct(i, info, "info");
    });
}

dsa_status dsa_engine_warnings(dsa_engine* engine, char* text, size_t capacity, size_t* count) {
    return guarded([&] {
        std::string lines;
        for (const std::string& warning : engine_of(engine)->warnings())
            lines += (lines.empty() ? "" : "\n") + warning;
        write_text(lines, text, capacity, count);
    });
}

dsa_status dsa_tokenize(dsa_engine* engine, const char* text, size_t bytes, int32_t* ids,
                        size_t capacity, size_t* count) {
    return guarded([&] {
        const auto e = engine_of(engine);
        const auto from = array(text, bytes, "text");
        const auto found = e->tokenizer().encode({from.data(), from.size()});
        write_array<int32_t>(found, ids, capacity, count);
    });
}

dsa_status dsa_detokenize(dsa_engine* engine, const int32_t* ids, size_t num_ids, char* text,
                          size_t capacity, size_t* count) {
    return guarded([&] {
        const auto e = engine_of(engine);
        write_text(e->tokenizer().decode(array(ids, num_ids, "ids")), text, capacity, count);
    });
}

dsa_status dsa_special_token(dsa_engine* engine, const char* piece, int32_t* id) {
    return guarded([&] {
        const auto e = engine_of(engine);
        const auto found = e->tokenizer().find_special(&required(piece, "piece"));
        if (!found)
            dsa::throw_error(dsa::ErrorCode::kNotFound, "the tokenizer has no special token ",
                             piece);
        required(id, "id") = *found;
    });
}

dsa_status dsa_end_tokens(dsa_engine* engine, int32_t* ids, size_t capacity, size_t* count) {
    return guarded([&] {
        const auto e = engine_of(engine);
        write_array<int32_t>(e->info().config.eos_token_ids, ids, capacity, count);
    });
}

dsa_status dsa_encode_chat(dsa_engine* engine, const dsa_message* messages, size_t num_messages,
                           bool thinking, int32_t* ids, size_t capacity, size_t* count) {
    return guarded([&] {
        const auto e = engine_of(engine);
        const auto found = dsa::encode_chat(e->tokenizer(), messages_of(messages, num_messages),
                                            {.thinking = thinking});
        write_array<int32_t>(found, ids, capacity, count);
    });
}
