/* client: see client.h. */
#include "client.h"

#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

static char common_header[CLIENT_PATH_SIZE];

double client_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

void client_allow_descriptors(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

char (*client_read_paths(size_t *ret_n))[CLIENT_PATH_SIZE]
{
    char(*paths)[CLIENT_PATH_SIZE] = NULL;
    char line[CLIENT_PATH_SIZE];
    size_t n = 0;
    while (fgets(line, sizeof(line), stdin) != NULL) {
        paths = reallocarray(paths, n + 1, sizeof(*paths));
        if (paths == NULL)
            err(EXIT_FAILURE, "paths");
        line[strcspn(line, "\n")] = '\0';
        strcpy(paths[n++], line);
    }
    *ret_n = n;
    return paths;
}

void client_open(struct client *c, int port, int epoll)
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

void client_use_header(const char *header)
{
    snprintf(common_header, sizeof(common_header), "%s\r\n", header);
}

void client_ask(struct client *c, const char *path, const char *headers)
{
    char question[3 * CLIENT_PATH_SIZE + 256];
    int len = snprintf(question, sizeof(question), "GET %s HTTP/1.1\r\nHost: localhost\r\n%s%s\r\n", path,
                       common_header, headers);
    c->len = 0;
    c->data[0] = '\0';
    if (send(c->fd, question, (size_t)len, MSG_NOSIGNAL) != len)
        err(EXIT_FAILURE, "a question");
}

bool client_receive(struct client *c)
{
    ssize_t n = recv(c->fd, c->data + c->len, CLIENT_DATA_MAX - c->len, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return true;
    if (n <= 0)
        return false;
    c->len += (size_t)n;
    c->data[c->len] = '\0';
    return true;
}

bool client_has_answer(const struct client *c)
{
    static const char name[] = "\r\nContent-Length:";
    const char *head_end = strstr(c->data, "\r\n\r\n");
    if (head_end == NULL)
        return false;
    const char *length = strcasestr(c->data, name);
    size_t body = length != NULL && length < head_end ? strtoul(length + sizeof(name) - 1, NULL, 10) : 0;
    return c->len >= (size_t)(head_end + 4 - c->data) + body;
}
