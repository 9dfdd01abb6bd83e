/* A conversation from C: the likeliest first token, then the reply as it is written.
 *   embed MODEL [QUESTION] */

#include <stdio.h>
#include <stdlib.h>

#include "dsa/dsa.h"

enum { MAX_PROMPT = 512 };

static void check(dsa_status status) {
    if (status == DSA_OK) return;
    fprintf(stderr, "embed: %s: %s\n", dsa_status_name(status), dsa_last_error());
    exit(1);
}

static void print_likeliest(dsa_engine* engine, dsa_session* session) {
    size_t count = 0;
    dsa_session_logits(session, NULL, 0, &count); /* asks for the size */
    float* logits = malloc(count * sizeof(float));
    if (logits == NULL) return;
    check(dsa_session_logits(session, logits, count, &count));
    int32_t best = 0;
    for (size_t i = 1; i < count; ++i)
        if (logits[i] > logits[best]) best = (int32_t)i;
    char text[64];
    check(dsa_detokenize(engine, &best, 1, text, sizeof text, &count));
    printf("logit %g for '%s'\n", logits[best], text);
    free(logits);
}

static bool show(void* user, int32_t id, const char* text, size_t bytes) {
    (void)user, (void)id, (void)bytes;
    fputs(text, stdout);
    return true; /* false stops */
}

int main(int argc, char** argv) {
    if (argc < 2) return fprintf(stderr, "usage: embed MODEL [QUESTION]\n"), 2;
    dsa_engine_options options = {.size = sizeof options, .context_length = 2048};
    dsa_engine* engine;
    dsa_session* session;
    check(dsa_engine_open(argv[1], &options, &engine));
    check(dsa_session_new(engine, &session));
    dsa_message message = {.size = sizeof message, .role = DSA_ROLE_USER};
    message.content = argc > 2 ? argv[2] : "Hello, who are you?";
    int32_t prompt[MAX_PROMPT];
    size_t tokens = 0;
    check(dsa_encode_chat(engine, &message, 1, false, prompt, MAX_PROMPT, &tokens));
    check(dsa_session_take_turn(session, prompt, tokens, NULL, NULL, NULL));
    print_likeliest(engine, session);
    dsa_generate_options reply = {.size = sizeof reply, .max_tokens = 64};
    check(dsa_session_generate(session, &reply, show, NULL, NULL));
    puts("");
    check(dsa_session_close(session));
    check(dsa_engine_close(engine));
}
