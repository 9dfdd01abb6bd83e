#pragma once
/* The C interface of the engine (C11; no exception crosses it).
 *
 *   dsa_engine* engine;
 *   dsa_session* session;
 *   if (dsa_engine_open("models/dsa-mini", NULL, &engine) != DSA_OK) return dsa_last_error();
 *   dsa_session_new(engine, &session);
 *
 * Errors: every function that can fail returns a dsa_status; dsa_last_error() says more. What a
 * function would have written stays as it was.
 * Handles: opaque numbers behind pointer types, never reused. NULL, a handle that was closed and
 * one of another kind give DSA_ERROR_INVALID_ARGUMENT (a session of a closed engine
 * DSA_ERROR_CLOSED).
 * Threads: an engine may be used from any number of threads, a session and a sampler from one at a
 * time (else DSA_ERROR_BUSY); dsa_session_cancel and the close functions from any.
 * Memory: the caller owns every buffer it passes, the library copies what it keeps. An array or
 * text is asked for with a capacity; *count becomes the full number of elements, and if that is
 * more than the capacity nothing is written and DSA_ERROR_BUFFER_TOO_SMALL returned (capacity 0 and
 * a null buffer ask for the size).
 * Growth: a struct starts with its size, which the caller sets, and grows at its end. In options
 * zero means the default, so `{sizeof(dsa_engine_options)}` or a null pointer is all defaults.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dsa_engine dsa_engine;
typedef struct dsa_session dsa_session;
typedef struct dsa_sampler dsa_sampler;

typedef int32_t dsa_status; /* one of */
enum {
    DSA_OK = 0,
    DSA_ERROR_INVALID_ARGUMENT = 1, /* a call that the interface does not allow */
    DSA_ERROR_NOT_FOUND = 2,        /* no such file, folder or special token */
    DSA_ERROR_INVALID_MODEL = 3,    /* a file of the model is damaged or inconsistent */
    DSA_ERROR_UNSUPPORTED = 4,      /* valid, but not implemented by this build */
    DSA_ERROR_CONTEXT_OVERFLOW = 5, /* more tokens than the context holds */
    DSA_ERROR_OUT_OF_MEMORY = 6,    /* the memory plan does not fit, or memory ran out */
    DSA_ERROR_INTERNAL = 7,         /* a broken invariant of the library itself */
    DSA_ERROR_BUSY = 8,             /* in a call already: second thread, or out of a callback */
    DSA_ERROR_CANCELLED = 9,        /* stopped by dsa_session_cancel */
    DSA_ERROR_CLOSED = 10,          /* the engine of this session was closed */
    DSA_ERROR_BUFFER_TOO_SMALL = 11 /* *count says what is needed */
};

/* "0.1.0"; static. */
const char* dsa_version(void);
/* "invalid argument", ...; static. */
const char* dsa_status_name(dsa_status status);
/* What went wrong in the last failed call on this thread, naming file, tensor, field or argument;
 * "" if none failed. Valid until the next failing call on this thread. */
const char* dsa_last_error(void);

/* ---- engine ---- */

enum { DSA_PRECISION_BF16 = 0, DSA_PRECISION_FP8 = 1, DSA_PRECISION_INT8 = 2 };

typedef struct dsa_engine_options {
    size_t size;
    int32_t threads;        /* 0: one a core */
    int32_t precision;      /* DSA_PRECISION_... */
    int64_t context_length; /* tokens a session holds; 0: the model's, at most 32768 */
    int64_t prefill_chunk;  /* tokens that go through the model at once; 0: 512 */
    int64_t memory_limit;   /* bytes; 0: what the system and cgroup allow */
    const char* isa;        /* "portable", "avx2", "avx512", "avx512_bf16", "amx"; NULL: DSA_ISA or
                               the best */
} dsa_engine_options;

typedef struct dsa_engine_info {
    size_t size;
    int64_t vocab_size;
    int64_t context_length;
    int64_t num_layers;
    int64_t parameters;
    int32_t threads;
    bool has_tokenizer;
    char isa[32];
} dsa_engine_info;

/* Bytes, an upper bound for an engine and one session. Fields as in dsa::MemoryPlan. */
typedef struct dsa_memory_plan {
    size_t size;
    int64_t context_length;
    int64_t total;
    int64_t weights;
    int64_t kv_cache;
    int64_t scratch;
    int64_t process; /* program, libraries, threads, tokenizer */
} dsa_memory_plan;

/* Reads and checks the checkpoint's headers and computes the plan; opens nothing. */
dsa_status dsa_plan_memory(const char* model, const dsa_engine_options* options,
                           dsa_memory_plan* plan);
/* model: a folder in the HuggingFace layout. */
dsa_status dsa_engine_open(const char* model, const dsa_engine_options* options,
                           dsa_engine** engine);
/* Ends the engine: calls in progress on its sessions stop with DSA_ERROR_CLOSED before their next
 * chunk or token. Memory is given back when the last session is closed too. */
dsa_status dsa_engine_close(dsa_engine* engine);
dsa_status dsa_engine_get_info(dsa_engine* engine, dsa_engine_info* info);
/* Warnings about the checkpoint, one a line; NUL-terminated, *count with the NUL. */
dsa_status dsa_engine_warnings(dsa_engine* engine, char* text, size_t capacity, size_t* count);

/* ---- text ---- */

/* Ordinary text: what it spells never becomes a control token. No begin token is added. */
dsa_status dsa_tokenize(dsa_engine* engine, const char* text, size_t bytes, int32_t* ids,
                        size_t capacity, size_t* count);
/* UTF-8, invalid bytes as U+FFFD, control tokens left out; NUL-terminated, *count with the NUL. */
dsa_status dsa_detokenize(dsa_engine* engine, const int32_t* ids, size_t num_ids, char* text,
                          size_t capacity, size_t* count);
/* Id of a control token by its piece. */
dsa_status dsa_special_token(dsa_engine* engine, const char* piece, int32_t* id);
/* The tokens that end a reply. */
dsa_status dsa_end_tokens(dsa_engine* engine, int32_t* ids, size_t capacity, size_t* count);

enum { DSA_ROLE_SYSTEM = 0, DSA_ROLE_USER = 1, DSA_ROLE_ASSISTANT = 2, DSA_ROLE_DOCUMENT = 3 };

typedef struct dsa_message {
    size_t size;
    int32_t role;        /* DSA_ROLE_... */
    const char* content; /* NUL-terminated */
    /* Assistant only: the reply as it was generated, without its end token; used instead of
     * content, so that a conversation keeps its cache. */
    const int32_t* content_ids;
    size_t num_content_ids;
} dsa_message;

/* A conversation as the model is used to it, ready for the reply if the last message is the user's.
 * The messages lie messages->size bytes apart. thinking: the reply begins with reasoning. */
dsa_status dsa_encode_chat(dsa_engine* engine, const dsa_message* messages, size_t num_messages,
                           bool thinking, int32_t* ids, size_t capacity, size_t* count);

/* ---- session: one timeline of tokens ---- */

/* Called after each chunk; false stops there, with what was taken in kept. */
typedef bool (*dsa_progress)(void* user, int64_t done, int64_t total);

dsa_status dsa_session_new(dsa_engine* engine, dsa_session** session);
/* Cancels a call in progress on another thread, which ends before the memory goes. */
dsa_status dsa_session_close(dsa_session* session);
dsa_status dsa_session_tokens(dsa_session* session, int32_t* ids, size_t capacity, size_t* count);
/* Forgets all but the first n tokens, and the logits with them. */
dsa_status dsa_session_rewind(dsa_session* session, size_t n);
/* Takes tokens in behind those that it has. *taken (may be null): how many; all of them unless
 * progress (may be null) stopped it. */
dsa_status dsa_session_prefill(dsa_session* session, const int32_t* ids, size_t num_ids,
                               dsa_progress progress, void* user, size_t* taken);
/* Makes the session hold exactly these tokens, keeping the longest common prefix; *kept (may be
 * null) is its length. */
dsa_status dsa_session_take_turn(dsa_session* session, const int32_t* ids, size_t num_ids,
                                 dsa_progress progress, void* user, size_t* kept);
/* Takes one token in; then dsa_session_logits or dsa_sampler_sample. */
dsa_status dsa_session_decode(dsa_session* session, int32_t id);
/* Logits behind the last token [vocab_size]; *count is 0 where there are none. */
dsa_status dsa_session_logits(dsa_session* session, float* logits, size_t capacity, size_t* count);
/* Stops the call in progress, from any thread or callback: it returns DSA_ERROR_CANCELLED, or
 * generate DSA_OK with that stop reason. Without one it does nothing. */
dsa_status dsa_session_cancel(dsa_session* session);

/* ---- sampling and generation ---- */

typedef struct dsa_sampling {
    size_t size;
    uint64_t seed;
    double temperature;        /* 0: greedy */
    int64_t top_k;             /* 0: off */
    double top_p;              /* 0 or 1: off */
    double min_p;              /* 0: off */
    double repetition_penalty; /* 0 or 1: off */
} dsa_sampling;

/* A random stream of its own. */
dsa_status dsa_sampler_new(const dsa_sampling* sampling, dsa_sampler** sampler);
dsa_status dsa_sampler_close(dsa_sampler* sampler);
/* Chooses the token that follows, from the session's logits; it is not taken in. */
dsa_status dsa_sampler_sample(dsa_sampler* sampler, dsa_session* session, int32_t* id);

enum {
    DSA_STOP_END_TOKEN = 0,
    DSA_STOP_MAX_TOKENS = 1,
    DSA_STOP_CONTEXT_FULL = 2,
    DSA_STOP_CALLBACK = 3,
    DSA_STOP_CANCELLED = 4
};

typedef struct dsa_generate_options {
    size_t size;
    const dsa_sampling* sampling; /* NULL: greedy */
    int64_t max_tokens;           /* 0: until the context is full */
    const int32_t* stop_ids;      /* NULL: the model's end tokens */
    size_t num_stop_ids;
    bool ignore_eos;
} dsa_generate_options;

typedef struct dsa_generate_result {
    size_t size;
    int64_t num_tokens; /* generated, a final end token included: the session's last ones */
    int32_t reason;     /* DSA_STOP_... */
} dsa_generate_result;

/* text: the whole UTF-8 characters that became complete with this token, NUL-terminated, valid
 * during the call; false stops. */
typedef bool (*dsa_on_token)(void* user, int32_t id, const char* text, size_t bytes);

/* Samples until a stop; every token is taken in. on_token and result may be null. */
dsa_status dsa_session_generate(dsa_session* session, const dsa_generate_options* options,
                                dsa_on_token on_token, void* user, dsa_generate_result* result);

#ifdef __cplusplus
}
#endif
