/* client: one HTTP connection over loopback; the benchmark programs have thousands of them. */
#ifndef CLIENT_H
#define CLIENT_H

#include <stdbool.h>
#include <stddef.h>

enum { CLIENT_PATH_SIZE = 256, CLIENT_DATA_MAX = 32 * 1024 };

struct client {
    int fd;
    size_t len;                     /* of the received data that was not consumed yet */
    char data[CLIENT_DATA_MAX + 1]; /* ends with a NUL */
};

/* Unix time. */
double client_now_ms(void);

/* Raises the descriptor limit to its maximum. */
void client_allow_descriptors(void);

/* The lines of standard input, each a path; *ret_n is their number. */
char (*client_read_paths(size_t *ret_n))[CLIENT_PATH_SIZE];

/* Connects, or exits. The epoll events of the connection have the client as their data.ptr. */
void client_open(struct client *c, int port, int epoll);

/* Adds this header, "Name: value", to each request from now on. */
void client_use_header(const char *header);

/* Sends a request with additional headers ("Name: value\r\n" each), and discards earlier data. */
void client_ask(struct client *c, const char *path, const char *headers);

/* Reads available data; returns false if the server has closed the connection. */
bool client_receive(struct client *c);

/* Whether a complete answer was received. Without a Content-Length it has no body. */
bool client_has_answer(const struct client *c);

#endif
