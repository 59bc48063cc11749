/* status: see status.h. A FastCGI client for a single request, which is a constant. */
#include "cli/status.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "config/conf.h"
#include "server/status_page.h"

enum { WAIT_S = 5, ANSWER_MAX = STATUS_PAGE_MAX + 4096, JSON_DEPTH = 8 };
enum { HEADER_LEN = 8, RECORD_MAX = 65535 + 255, END_REQUEST = 3, STDOUT = 6 };

/* BEGIN_REQUEST, PARAMS, the end of PARAMS, and the end of STDIN. */
static const char request[] = "\1\1\0\1\0\10\0\0\0\1\0\0\0\0\0\0"
                              "\1\4\0\1\0\47\0\0\16\3REQUEST_METHODGET\13\7REQUEST_URI/status"
                              "\1\4\0\1\0\0\0\0"
                              "\1\5\0\1\0\0\0"; /* and the NUL that ends the text */

/* Returns a descriptor with time-outs, or -1 with errno. */
static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const struct timeval limit = {.tv_sec = WAIT_S};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) == 0 &&
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) == 0 &&
        connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

/* Appends the answer to `out`; false if it does not come or is incomplete. */
static bool read_answer(int fd, struct buf *out)
{
    unsigned char header[HEADER_LEN], content[RECORD_MAX];
    while (read_full(fd, header, HEADER_LEN) == HEADER_LEN && header[1] != END_REQUEST) {
        long len = header[4] << 8 | header[5], whole = len + header[6];
        if (read_full(fd, content, (size_t)whole) != whole)
            return false;
        if (header[1] == STDOUT)
            buf_add(out, content, (size_t)len);
    }
    return header[1] == END_REQUEST && !out->failed;
}

static enum status_end read_status(const char *page)
{
    struct json_error error;
    struct json_object *doc = json_read(page, strlen(page), JSON_DEPTH, JSON_PLAIN, &error), *status = NULL;
    json_object_object_get_ex(doc, "status", &status);
    const char *word = json_text(status);
    enum status_end end = word == NULL                 ? STATUS_UNKNOWN
                          : strcmp(word, "ready") == 0 ? STATUS_READY
                                                       : STATUS_TROUBLED;
    json_object_put(doc);
    return end;
}

/* Closes the descriptor. */
static enum status_end ask(int fd, const char *path)
{
    struct buf answer;
    buf_init(&answer, ANSWER_MAX);
    enum status_end end = STATUS_UNKNOWN;
    bool whole = send(fd, request, sizeof(request), MSG_NOSIGNAL) == (ssize_t)sizeof(request) &&
                 read_answer(fd, &answer);
    const char *page = whole && answer.data != NULL ? strstr(answer.data, "\r\n\r\n") : NULL;
    if (page != NULL)
        end = read_status(page + 4);
    if (end == STATUS_UNKNOWN)
        fprintf(stderr, "taskproxy: the status server at %s sent no status\n", path);
    else if (fputs(page + 4, stdout) == EOF || fflush(stdout) != 0)
        end = STATUS_UNKNOWN;
    close(fd);
    buf_done(&answer);
    return end;
}

enum status_end status_show(const char *conf_path)
{
    char *error = NULL, *dir = conf_socket_dir(conf_path, &error);
    char *path = dir ? xasprintf("%s/status.sock", dir) : NULL;
    enum status_end end = STATUS_UNKNOWN;
    int fd = path ? connect_to(path) : -1;
    if (fd >= 0)
        end = ask(fd, path);
    else if (path != NULL)
        error = xasprintf("cannot connect to %s: %s", path, strerror(errno));
    if (error != NULL)
        fprintf(stderr, "taskproxy: %s\n", error);
    free(error);
    free(path);
    free(dir);
    return end;
}
