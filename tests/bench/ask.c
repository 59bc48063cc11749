/* ask: sends requests to an HTTP server on loopback and prints the latency of each.
 *
 *     ask PORT CONNECTIONS WARM_PATH [HEADER] < PATHS
 *
 * All connections are opened, and each requests WARM_PATH, so that the server has accepted all of them before
 * the clock starts. Then they request the paths on standard input, one per line: the first ones all at once,
 * and each connection sends the next request when it has its answer. The milliseconds from request to last
 * byte are printed, one per line and in no order. A status other than 2xx ends the program with status 1. */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "client.h"

enum { BATCH = 256, PATIENCE_MS = 20000 };

struct connection {
    struct client client; /* first, as it is epoll's data.ptr */
    double asked_ms;
};

static struct connection *connections;
static size_t n_connections;
static int epoll;

/* The paths; those from `next` on were not requested yet. */
static char (*paths)[CLIENT_PATH_SIZE];
static size_t n_paths, next;

static void ask(struct connection *c, const char *path)
{
    c->asked_ms = client_now_ms();
    client_ask(&c->client, path, "");
}

/* Reads available data; returns whether the answer is complete. */
static bool read_on(struct connection *c)
{
    const char *answer = c->client.data;
    if (!client_receive(&c->client))
        errx(EXIT_FAILURE, "a connection ended without a whole answer");
    if (!client_has_answer(&c->client))
        return false;
    if (strncmp(answer, "HTTP/1.1 2", 10) != 0)
        errx(EXIT_FAILURE, "%.*s", (int)strcspn(answer, "\r"), answer);
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

static void on_answer(struct connection *c)
{
    printf("%.3f\n", client_now_ms() - c->asked_ms);
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
    if (argc < 4 || argc > 5)
        errx(EXIT_FAILURE, "usage: ask PORT CONNECTIONS WARM_PATH [HEADER] < PATHS");
    if (argc == 5)
        client_use_header(argv[4]);
    n_connections = strtoul(argv[2], NULL, 10);
    connections = calloc(n_connections, sizeof(*connections));
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (connections == NULL || epoll < 0)
        err(EXIT_FAILURE, "no means");
    paths = client_read_paths(&n_paths);
    client_allow_descriptors();
    for (size_t i = 0; i < n_connections; i++)
        client_open(&connections[i].client, atoi(argv[1]), epoll);
    warm_up(argv[3]);
    put_questions();
    free(connections);
    free(paths);
    return EXIT_SUCCESS;
}
