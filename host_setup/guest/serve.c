#define _GNU_SOURCE
#include "serve.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "collect.h"
#include "line_reader.h"
#include "report.h"
#include "run.h"

/* Each batch of lines becomes a packet, whose interrupts cost the tasks time: while a set runs there are at
 * most ten a second. Nothing is lost meanwhile, the rings hold thousands of records, and one that is half
 * full does not wait. */
#define BATCH_PAUSE_MS 100

/* How long a reader may take over the last lines once its end of the input is closed. */
#define LAST_WORDS_MS 2000

enum talk {
    TALK_IDLE,
    TALK_SKIPPING, /* the request was turned down; what still comes of it is not worth an error of its own */
    TALK_RUNNING,
};

struct server {
    enum talk talk;
    bool leave;
    int signals; /* signalfd: we are to end */
    struct means means;
    struct run run;
    struct collector collector;
    struct request request;
    struct line_reader in;
    struct out out;
};

static void turn_down(struct server *server, const struct fault *fault)
{
    report_fault(fault, &server->out);
    server->collector.open = false;
    if (server->talk != TALK_RUNNING)
        server->talk = TALK_SKIPPING;
}

static bool collect(struct server *server, struct fault *fault)
{
    if (server->talk == TALK_RUNNING)
        return fault_set(fault, "busy", "a set is running");
    if (!collector_take(&server->collector, &server->request, fault))
        return false;
    server->talk = TALK_IDLE;
    if (server->request.verb != VERB_RUN)
        return true;
    if (!run_start(&server->run, &server->collector.set, &server->out, fault))
        return false;
    server->talk = TALK_RUNNING;
    return true;
}

static bool handle(struct server *server, struct fault *fault)
{
    switch (server->request.verb) {
    case VERB_TASKSET:
    case VERB_TASK:
    case VERB_RUN:
        return collect(server, fault);
    case VERB_PING:
        report_pong(server->request.token, &server->out);
        return true;
    case VERB_STOP:
        if (server->talk == TALK_RUNNING)
            run_stop(&server->run);
        return true; /* without a set it came too late, which its sender could not know */
    case VERB_QUIT:
        server->leave = true;
        return true;
    }
    __builtin_unreachable();
}

/* Takes the lines that came, as long as there is room to answer. */
static void take_lines(struct server *server)
{
    struct fault fault;
    const char *line;
    size_t length;
    enum line what;

    while (!server->leave && out_has_room(&server->out) &&
           (what = line_next(&server->in, &line, &length)) != LINE_NONE) {
        if (what == LINE_TOO_LONG) {
            fault_set(&fault, "overlong", "a line has at most %d bytes", MAX_LINE);
            turn_down(server, &fault);
            continue;
        }
        if (server->talk == TALK_SKIPPING && request_belongs_to_set(line, length))
            continue;
        if (!request_parse(line, length, &server->request, &fault) || !handle(server, &fault))
            turn_down(server, &fault);
    }
}

/* Returns how long to wait before the next batch, in ms; -1: until something happens. */
static int report(struct server *server)
{
    if (server->talk != TALK_RUNNING)
        return -1;
    bool any = run_report(&server->run, &server->out);
    if (run_is_over(&server->run) && out_has_room(&server->out)) {
        run_end(&server->run, &server->out);
        server->talk = TALK_IDLE;
        return -1;
    }
    if (any)
        return BATCH_PAUSE_MS;
    /* Ask to be woken, then look again: a record may have come in between. */
    atomic_store(&server->run.shared.reporter_waits, 1);
    return run_report(&server->run, &server->out) ? BATCH_PAUSE_MS : -1;
}

static void take_signals(struct server *server)
{
    struct signalfd_siginfo info;

    while (read(server->signals, &info, sizeof info) == sizeof info)
        server->leave = true;
}

/* Waits until there is something to do, and does what concerns a single file descriptor. */
static void wait_and_read(struct server *server, int timeout_ms)
{
    enum { IN, OUT, SIGNALS, RECORDS, N };
    uint64_t n_wakes;
    struct pollfd pollers[N] = {
        [IN] = {.fd = STDIN_FILENO, .events = out_has_room(&server->out) ? POLLIN : 0},
        [OUT] = {.fd = server->out.fd, .events = out_is_pending(&server->out) ? POLLOUT : 0},
        [SIGNALS] = {.fd = server->signals, .events = POLLIN},
        [RECORDS] = {.fd = server->means.reporter_event, .events = POLLIN},
    };

    if (poll(pollers, N, timeout_ms) < 0)
        return;
    if (pollers[OUT].revents & (POLLERR | POLLHUP | POLLNVAL))
        server->out.broken = true;
    if (pollers[RECORDS].revents && read(server->means.reporter_event, &n_wakes, sizeof n_wakes) < 0)
        n_wakes = 0; /* how often does not matter */
    if (pollers[SIGNALS].revents)
        take_signals(server);
    if (pollers[IN].revents && !out_has_room(&server->out)) {
        server->leave = true; /* it hung up, and has left unread more than we can hold */
    } else if (pollers[IN].revents) {
        ssize_t n = line_read(&server->in, STDIN_FILENO);
        if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN))
            server->leave = true;
    }
}

/* The signals are blocked before there are other threads, which inherit that. */
static bool set_up(struct server *server)
{
    struct means *means = &server->means;
    sigset_t awaited;

    server->out.fd = STDOUT_FILENO;
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&awaited);
    sigaddset(&awaited, SIGHUP);
    sigaddset(&awaited, SIGINT);
    sigaddset(&awaited, SIGTERM);
    sigprocmask(SIG_BLOCK, &awaited, NULL);
    server->signals = signalfd(-1, &awaited, SFD_CLOEXEC | SFD_NONBLOCK);
    means->reporter_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    means->ring_slots = mmap(NULL, RING_SLOTS * sizeof *means->ring_slots, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (server->signals < 0 || means->reporter_event < 0 || means->ring_slots == MAP_FAILED)
        return false;
    errno = means_set_up(means);
    if (errno == 0)
        errno = run_open(&server->run, means, &REPORT_LINES);
    return errno == 0;
}

static int converse(struct server *server)
{
    if (!set_up(server)) {
        perror("taskloader: cannot be made ready");
        return 1;
    }
    report_hello(&server->means.spin, &server->out);
    while (!server->leave && !server->out.broken) {
        int timeout_ms = report(server);
        bool was_full = !out_has_room(&server->out);
        out_write_some(&server->out);
        if (was_full && out_has_room(&server->out))
            timeout_ms = 0; /* there may be records that found no room a moment ago */
        wait_and_read(server, timeout_ms);
        take_lines(server);
    }
    if (server->talk == TALK_RUNNING)
        run_end(&server->run, NULL);
    out_write_all(&server->out, LAST_WORDS_MS);
    return server->out.broken ? 1 : 0;
}

int serve(void)
{
    static struct server server; /* too large for the stack */

    return converse(&server);
}
