/* herd: many connections ask the same at once.
 *
 *     herd PORT CONNECTIONS WARM_PATH PATH
 *
 * All connections are opened, and each asks for WARM_PATH, so that the server has taken every one of them before the
 * clock starts. Then all ask for PATH in one go. Printed is for each, one a line, how many milliseconds passed from its
 * question to the last byte of its answer. Any status that is not 2xx ends the program with 1. */
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

enum { ANSWER_MAX = 32 * 1024, BATCH = 256, PATIENCE_MS = 20000 };

struct connection {
    int fd;
    double asked_ms;
    double took_ms;
    size_t len; /* of the answer so far */
    char answer[ANSWER_MAX + 1];
};

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

static void open_connection(struct connection *c, int port, int epoll)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        err(EXIT_FAILURE, "a connection to port %d", port);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event);
}

/* An answer ends where its Content-Length says; without one it has no body. */
static bool is_whole(const struct connection *c)
{
    const char *head_end = strstr(c->answer, "\r\n\r\n");
    if (head_end == NULL)
        return false;
    const char *length = strcasestr(c->answer, "\r\nContent-Length:");
    size_t body = length != NULL && length < head_end ? strtoul(length + 17, NULL, 10) : 0;
    return c->len >= (size_t)(head_end + 4 - c->answer) + body;
}

/* Whether the answer is there now. */
static bool read_on(struct connection *c)
{
    ssize_t n = recv(c->fd, c->answer + c->len, ANSWER_MAX - c->len, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return false;
    if (n <= 0)
        errx(EXIT_FAILURE, "a connection was closed without a whole answer");
    c->len += (size_t)n;
    c->answer[c->len] = '\0';
    if (!is_whole(c))
        return false;
    c->took_ms = now_ms() - c->asked_ms;
    if (strncmp(c->answer, "HTTP/1.1 2", 10) != 0)
        errx(EXIT_FAILURE, "%.*s", (int)strcspn(c->answer, "\r"), c->answer);
    return true;
}

static void ask_all(struct connection *connections, size_t count, int epoll, const char *path)
{
    char question[512];
    int len = snprintf(question, sizeof(question), "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path);
    for (struct connection *c = connections; c < connections + count; c++) {
        c->len = 0;
        c->asked_ms = now_ms();
        if (send(c->fd, question, (size_t)len, MSG_NOSIGNAL) != len)
            err(EXIT_FAILURE, "a question");
    }
    for (size_t answered = 0; answered < count;) {
        struct epoll_event events[BATCH];
        int n = epoll_wait(epoll, events, BATCH, PATIENCE_MS);
        if (n == 0)
            errx(EXIT_FAILURE, "%zu of %zu answers came", answered, count);
        for (int i = 0; i < n; i++)
            answered += read_on(events[i].data.ptr);
    }
}

int main(int argc, char **argv)
{
    if (argc != 5)
        errx(EXIT_FAILURE, "usage: herd PORT CONNECTIONS WARM_PATH PATH");
    size_t count = strtoul(argv[2], NULL, 10);
    struct connection *connections = calloc(count, sizeof(*connections));
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (connections == NULL || epoll < 0)
        err(EXIT_FAILURE, "herd");
    allow_descriptors();
    for (size_t i = 0; i < count; i++)
        open_connection(&connections[i], atoi(argv[1]), epoll);
    ask_all(connections, count, epoll, argv[3]);
    ask_all(connections, count, epoll, argv[4]);
    for (size_t i = 0; i < count; i++)
        printf("%.3f\n", connections[i].took_ms);
    free(connections);
    return EXIT_SUCCESS;
}
