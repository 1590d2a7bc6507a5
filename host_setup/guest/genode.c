#define _GNU_SOURCE
#include "genode.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "genode_files.h"
#include "genode_input.h"
#include "genode_report.h"

/* As with `serve`: each profile is a packet, whose interrupts cost the tasks time. */
#define BATCH_PAUSE_MS 100

enum { PIECE_BYTES = 16 << 10 };

struct server {
    int exit_code; /* -1: go on */
    int signals;   /* signalfd: we are to end */
    int listener;
    int n_cpus;
    bool running;
    bool goal; /* an admission-control goal is set */
    struct means means;
    struct run run;
    struct taskset set;          /* that runs */
    struct genode_tasks started; /* that it was made of */
    struct genode_tasks queue;
    struct genode_files files;
    struct genode_input input;
    struct slice unread; /* of `piece` */
    char piece[PIECE_BYTES];
    struct out out; /* its `fd` is the client; -1: none */
};

/* Nothing of a client outlives it but its files. */
static void drop_client(struct server *server, const char *why)
{
    if (why)
        fprintf(stderr, "taskloader: genode: the client is dropped: %s\n", why);
    if (server->running)
        run_end(&server->run, NULL);
    server->running = server->goal = false;
    server->queue.n = 0;
    genode_file_abandon(&server->files);
    close(server->out.fd);
    server->out.fd = -1;
}

static void accept_client(struct server *server)
{
    const int one = 1;
    int fd = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0)
        return; /* it has gone again */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    server->out.fd = fd;
    server->out.used = server->out.sent = 0;
    server->out.broken = false;
    server->unread.length = 0;
    server->input.wait = WAIT_TAG;
    server->input.n_head = 0;
}

static void start(struct server *server)
{
    struct fault fault;

    if (server->running || server->queue.n == 0)
        return; /* it is under way, or there is nothing */
    server->started = server->queue;
    genode_taskset(&server->started, server->goal, server->n_cpus, &server->set);
    server->run.form_data = &server->started;
    server->running = run_start(&server->run, &server->set, &server->out, &fault);
    if (server->running)
        return;
    fprintf(stderr, "taskloader: genode: the set cannot start: %s\n", fault.detail);
    genode_report_refusal(&server->started, &server->out);
}

/* All that is left to tell of the set precedes what answers the next request; a client that has left most of
 * what it was told unread misses some of it. */
static void stop(struct server *server)
{
    if (!server->running)
        return;
    run_stop(&server->run);
    shared_await_tasks(&server->run.shared);
    genode_report(&server->run, &server->out);
    run_end(&server->run, &server->out);
    server->running = false;
}

static void take_word(struct server *server)
{
    switch (server->input.tag) {
    case TAG_AVAILABLE:
        genode_report_word(TAG_AVAILABLE, &server->out);
        break;
    case TAG_START:
        start(server);
        break;
    case TAG_CLEAR:
        server->queue.n = 0;
        stop(server);
        break;
    case TAG_STOP:
        stop(server);
        break;
    case TAG_REBOOT:
        server->exit_code = EXIT_REBOOT;
        break;
    }
}

static bool take_text(struct server *server, struct fault *fault)
{
    const struct genode_input *input = &server->input;

    if (input->tag == TAG_OPTIMIZE)
        return genode_goal_read(input->text, input->text_bytes, &server->goal, fault);
    return genode_tasks_add(&server->queue, input->text, input->text_bytes, fault);
}

/* Returns why the client cannot stay, or NULL. */
static const char *take(struct server *server, enum genode_event event)
{
    static struct fault fault;

    switch (event) {
    case GENODE_NOTHING:
        return NULL;
    case GENODE_WORD:
        take_word(server);
        return NULL;
    case GENODE_TEXT:
        return take_text(server, &fault) ? NULL : fault.detail;
    case GENODE_NEXT_FILE:
        genode_report_word(TAG_GO_SEND, &server->out);
        return NULL;
    case GENODE_FILE:
        genode_file_begin(&server->files, server->input.name, server->input.left);
        return NULL;
    case GENODE_FILE_PIECE:
        genode_file_piece(&server->files, server->input.piece);
        return NULL;
    case GENODE_FILE_END:
        genode_file_end(&server->files);
        return NULL;
    case GENODE_BAD:
        return server->input.why;
    }
    __builtin_unreachable();
}

static bool may_read(const struct server *server)
{
    return server->out.fd >= 0 && server->exit_code < 0 && out_has_room(&server->out);
}

/* What came, as far as it may be taken now. */
static void take_bytes(struct server *server)
{
    enum genode_event event = GENODE_WORD;

    while (may_read(server) && event != GENODE_NOTHING) {
        event = genode_input_next(&server->input, &server->unread);
        const char *why = take(server, event);
        if (why)
            drop_client(server, why);
    }
}

static void read_piece(struct server *server)
{
    ssize_t n = read(server->out.fd, server->piece, sizeof server->piece);

    if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN))
        drop_client(server, NULL);
    else if (n > 0)
        server->unread = (struct slice){server->piece, (size_t)n};
}

/* Returns how long to wait before the next batch, in ms; -1: until something happens. */
static int report(struct server *server)
{
    if (!server->running || !out_has_room(&server->out))
        return -1;
    bool any = genode_report(&server->run, &server->out);
    if (run_is_over(&server->run)) {
        run_end(&server->run, &server->out);
        server->running = false;
        return 0;
    }
    if (any)
        return BATCH_PAUSE_MS;
    /* Ask to be woken, then look again: a record may have come in between. */
    atomic_store(&server->run.shared.reporter_waits, 1);
    return genode_report(&server->run, &server->out) ? BATCH_PAUSE_MS : -1;
}

static void wait_and_read(struct server *server, int timeout_ms)
{
    enum { LISTENER, CLIENT, SIGNALS, RECORDS, N };
    uint64_t n_wakes;
    struct signalfd_siginfo info;
    bool has_client = server->out.fd >= 0;
    bool reads = may_read(server) && server->unread.length == 0;
    struct pollfd pollers[N] = {
        [LISTENER] = {.fd = has_client ? -1 : server->listener, .events = POLLIN},
        [CLIENT] = {.fd = server->out.fd,
                    .events =
                        (short)((reads ? POLLIN : 0) | (out_is_pending(&server->out) ? POLLOUT : 0))},
        [SIGNALS] = {.fd = server->signals, .events = POLLIN},
        [RECORDS] = {.fd = server->means.reporter_event, .events = POLLIN},
    };

    if (poll(pollers, N, timeout_ms) < 0)
        return;
    if (pollers[RECORDS].revents && read(server->means.reporter_event, &n_wakes, sizeof n_wakes) < 0)
        n_wakes = 0; /* how often does not matter */
    if (pollers[SIGNALS].revents && read(server->signals, &info, sizeof info) > 0)
        server->exit_code = 0;
    if (pollers[LISTENER].revents)
        accept_client(server);
    if (!has_client)
        return;
    if (pollers[CLIENT].revents & (POLLERR | POLLNVAL) || (!reads && pollers[CLIENT].revents & POLLHUP))
        drop_client(server, NULL);
    else if (reads && pollers[CLIENT].revents & (POLLIN | POLLHUP))
        read_piece(server);
}

static bool listen_at(struct server *server, const char *port, const char *address)
{
    const int one = 1;
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t length = sizeof at;
    char *end;
    unsigned long number = strtoul(port, &end, 10);

    errno = EINVAL;
    if (port[0] < '0' || port[0] > '9' || *end || number > UINT16_MAX ||
        inet_pton(AF_INET, address, &at.sin_addr) != 1)
        return false;
    at.sin_port = htons((uint16_t)number);
    server->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (server->listener < 0 ||
        setsockopt(server->listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
        bind(server->listener, (struct sockaddr *)&at, sizeof at) != 0 || listen(server->listener, 4) != 0 ||
        getsockname(server->listener, (struct sockaddr *)&at, &length) != 0)
        return false;
    printf("taskloader: genode: port %d\n", ntohs(at.sin_port));
    fflush(stdout);
    return true;
}

/* The signals are blocked before there are other threads, which inherit that. It listens when all else is
 * ready. */
static bool set_up(struct server *server, const char *port, const char *address)
{
    struct means *means = &server->means;
    sigset_t awaited;

    server->exit_code = server->out.fd = -1;
    server->n_cpus = (int)sysconf(_SC_NPROCESSORS_ONLN);
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
    if ((errno = genode_files_open(&server->files)) != 0 || (errno = means_set_up(means)) != 0)
        return false;
    errno = run_open(&server->run, means, &GENODE_PROFILE);
    return errno == 0 && listen_at(server, port, address);
}

static void converse(struct server *server)
{
    while (server->exit_code < 0) {
        int timeout_ms = report(server);
        bool was_full = !out_has_room(&server->out);
        if (server->out.fd >= 0)
            out_write_some(&server->out);
        if ((was_full && out_has_room(&server->out)) || (may_read(server) && server->unread.length > 0))
            timeout_ms = 0;
        if (server->out.broken && server->out.fd >= 0)
            drop_client(server, NULL);
        wait_and_read(server, timeout_ms);
        take_bytes(server);
    }
    if (server->out.fd >= 0)
        drop_client(server, NULL);
}

int genode(const char *port, const char *address)
{
    /* Not among the static ones, which are locked in memory whatever the program is used for. */
    struct server *server =
        mmap(NULL, sizeof *server, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (server == MAP_FAILED || !set_up(server, port, address)) {
        perror("taskloader: genode: cannot be made ready");
        return 1;
    }
    converse(server);
    return server->exit_code;
}
