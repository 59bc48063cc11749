/* client: one HTTP connection over loopback, as the programs of the bench have them by the thousand. */
#ifndef CLIENT_H
#define CLIENT_H

#include <stdbool.h>
#include <stddef.h>

enum { CLIENT_PATH_SIZE = 256, CLIENT_DATA_MAX = 32 * 1024 };

struct client {
    int fd;
    size_t len;                     /* of what has come and was not yet taken */
    char data[CLIENT_DATA_MAX + 1]; /* ends with a NUL */
};

/* Unix time. */
double client_now_ms(void);

/* As many descriptors as the system allows this process. */
void client_allow_descriptors(void);

/* The lines of standard input, each a path; *ret_n says how many. */
char (*client_read_paths(size_t *ret_n))[CLIENT_PATH_SIZE];

/* Connects, or ends the program. The epoll events of the connection have the client as their data.ptr. */
void client_open(struct client *c, int port, int epoll);

/* Puts a question, with more headers ("Name: value\r\n" each), and forgets what had come before. */
void client_ask(struct client *c, const char *path, const char *headers);

/* Takes what has come. False: the server has closed the connection. */
bool client_receive(struct client *c);

/* Whether a whole answer is there. It ends where its Content-Length says; without one it has no body. */
bool client_has_answer(const struct client *c);

#endif
