#pragma once
// The conversation of `dsa chat`: messages, settings, the session behind them, and what an input
// line does to them. A message that fails or is interrupted before its reply is dropped; the
// conversation stays as it was.

#include <atomic>
#include <ostream>
#include <string>
#include <vector>

#include "common.h"
#include "dsa/chat.h"
#include "dsa/engine.h"

namespace dsa::app {

struct ChatStreams {
    std::ostream& reply;
    std::ostream& notice;  // everything that is not a reply or an error
    std::ostream& error;
    Terminal terminal;
    bool interactive;  // a person at a terminal: progress, timing line
};

class Conversation {
  public:
    // `interrupted` is set from outside to stop the work of the present line.
    Conversation(const Engine& engine, GenerationSettings settings, const std::string& system,
                 const ChatStreams& streams, const std::atomic<bool>& interrupted);

    // A command ("/...") or a message. False: the user wants to leave. Errors are written to
    // streams.error, one line each.
    bool handle(const std::string& line);

  private:
    struct Command;
    static const std::vector<Command>& commands();

    bool dispatch(const std::string& line);
    void say(const std::string& text);
    void reply(const std::vector<int32_t>& ids);
    std::vector<int32_t> encode() const;
    TurnOptions turn_options() const;
    void notice(const std::string& text);

    void help();
    void reset();
    void set_system(const std::string& text);
    void add_file(const std::string& path);
    void stats();
    void set(const std::string& argument);

    const Engine& engine_;
    ChatStreams streams_;
    const std::atomic<bool>& interrupted_;
    GenerationSettings settings_;
    Session session_;
    std::vector<Message> messages_;
    uint64_t replies_ = 0;  // since the conversation began; each has its own seed
    Turn last_;
};

}  // namespace dsa::app
