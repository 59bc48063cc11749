/* ask: puts questions to an HTTP server on loopback and prints how long each answer took.
 *
 *     ask PORT CONNECTIONS WARM_PATH < PATHS
 *
 * All connections are opened, and each asks for WARM_PATH, so that the server has taken every one of them
 * before the clock starts. Then they put the questions that stand on standard input, one path a line: the
 * first ones all at once, and each connection takes the next when it has its answer. Printed are, one a line
 * and in no order, the milliseconds from question to last byte. A status that is not 2xx ends the program
 * with 1. */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PATH_SIZE = 256, ANSWER_MAX = 32 * 1024, BATCH = 256, PATIENCE_MS = 20000 };

struct connection {
    int fd;
    double asked_ms;
    size_t len; /* of the answer so far */
    char answer[ANSWER_MAX + 1];
};

static struct connection *connections;
static size_t n_connections;
static int epoll;

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void allow_descriptors(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static void open_connection(struct connection *c, int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        err(EXIT_FAILURE, "a connection to port %d", port);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event) < 0)
        err(EXIT_FAILURE, "epoll_ctl");
}

static void ask(struct connection *c, const char *path)
{
    char question[PATH_SIZE + 64];
    int len = snprintf(question, sizeof(question), "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path);
    c->len = 0;
    c->asked_ms = now_ms();
    if (send(c->fd, question, (size_t)len, MSG_NOSIGNAL) != len)
        err(EXIT_FAILURE, "a question");
}

/* An answer ends where its Content-Length says; without one it has no body. */
static bool is_whole(const struct connection *c)
{
    static const char name[] = "\r\nContent-Length:";
    const char *head_end = strstr(c->answer, "\r\n\r\n");
    if (head_end == NULL)
        return false;
    const char *length = strcasestr(c->answer, name);
    size_t body = length != NULL && length < head_end ? strtoul(length + sizeof(name) - 1, NULL, 10) : 0;
    return c->len >= (size_t)(head_end + 4 - c->answer) + body;
}

/* Takes what has come; whether the answer is whole now. */
static bool read_on(struct connection *c)
{
    ssize_t n = recv(c->fd, c->answer + c->len, ANSWER_MAX - c->len, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return false;
    if (n <= 0)
        errx(EXIT_FAILURE, "a connection ended without a whole answer");
    c->len += (size_t)n;
    c->answer[c->len] = '\0';
    if (!is_whole(c))
        return false;
    if (strncmp(c->answer, "HTTP/1.1 2", 10) != 0)
        errx(EXIT_FAILURE, "%.*s", (int)strcspn(c->answer, "\r"), c->answer);
    return true;
}

/* Calls on_answer for `count` answers. */
static void await(size_t count, void (*on_answer)(struct connection *c))
{
    while (count > 0) {
        struct epoll_event events[BATCH];
        int n = epoll_wait(epoll, events, BATCH, PATIENCE_MS);
        if (n <= 0)
            errx(EXIT_FAILURE, "%zu answers did not come", count);
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            if (!read_on(c))
                continue;
            on_answer(c);
            count--;
        }
    }
}

static void on_warm(struct connection *c)
{
    (void)c;
}

static void warm_up(const char *path)
{
    for (size_t i = 0; i < n_connections; i++)
        ask(&connections[i], path);
    await(n_connections, on_warm);
}

/* The questions, those that are not yet put from `next` on. */
static char (*paths)[PATH_SIZE];
static size_t n_paths, next;

static void read_paths(void)
{
    char line[PATH_SIZE];
    while (fgets(line, sizeof(line), stdin) != NULL) {
        paths = reallocarray(paths, n_paths + 1, sizeof(*paths));
        if (paths == NULL)
            err(EXIT_FAILURE, "paths");
        line[strcspn(line, "\n")] = '\0';
        strcpy(paths[n_paths++], line);
    }
}

static void on_answer(struct connection *c)
{
    printf("%.3f\n", now_ms() - c->asked_ms);
    if (next < n_paths)
        ask(c, paths[next++]);
}

static void put_questions(void)
{
    for (size_t i = 0; i < n_connections && next < n_paths; i++)
        ask(&connections[i], paths[next++]);
    await(n_paths, on_answer);
}

int main(int argc, char **argv)
{
    if (argc != 4)
        errx(EXIT_FAILURE, "usage: ask PORT CONNECTIONS WARM_PATH < PATHS");
    n_connections = strtoul(argv[2], NULL, 10);
    connections = calloc(n_connections, sizeof(*connections));
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (connections == NULL || epoll < 0)
        err(EXIT_FAILURE, "no means");
    read_paths();
    allow_descriptors();
    for (size_t i = 0; i < n_connections; i++)
        open_connection(&connections[i], atoi(argv[1]));
    warm_up(argv[3]);
    put_questions();
    free(connections);
    free(paths);
    return EXIT_SUCCESS;
}
