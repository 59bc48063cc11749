/* follow: clients that follow tasks, each on its own connection, and what each of them reads, and when.
 *
 *     follow PORT MANNER SECONDS PERIOD_MS [HEADER] < PATHS
 *
 * Each line of standard input is the path that one client requests; a "*" in it is replaced by a number that
 * is different each time. They start at random times within the first PERIOD_MS. MANNER is one of these:
 *
 *     ask     requests the path every PERIOD_MS, for SECONDS
 *     poll    likewise, until the task has ended
 *     wait    after each answer, requests again with its ETag and wait=60, until the task has ended
 *     stream  reads the event stream of the task
 *
 * Prints a line for each answer, or each event of a stream: the client's number, the scheduled time of the
 * request and the time when the answer had been read (unix time, in ms), the HTTP status, and the progress or
 * "ended". */
#include <err.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

#include "client.h"

enum { BATCH = 256, ETAG_MAX = 64 };

enum manner { ASK, POLL, WAIT, STREAM };

struct follower {
    struct client client; /* first, as it is epoll's data.ptr */
    const char *path;
    double due_ms;    /* of the next request, or of the one in flight */
    bool asked;       /* a request is in flight */
    bool done;        /* sends no more requests */
    bool head_is_off; /* the head of the stream was read */
    char etag[ETAG_MAX];
};

static enum manner manner;
static double period_ms;
static struct follower *followers;
static size_t n_followers, n_left;

static void leave(struct follower *f)
{
    f->done = true;
    n_left--;
}

/* ---- requests ---- */

static const char *path_of(const struct follower *f)
{
    static char path[CLIENT_PATH_SIZE + 32];
    static unsigned number;
    const char *star = strchr(f->path, '*');
    if (star == NULL)
        return f->path;
    snprintf(path, sizeof(path), "%.*s%u%s", (int)(star - f->path), f->path, number++, star + 1);
    return path;
}

static void ask(struct follower *f)
{
    char headers[2 * ETAG_MAX] = "";
    if (manner == STREAM)
        strcpy(headers, "Accept: text/event-stream\r\n");
    else if (f->etag[0])
        snprintf(headers, sizeof(headers), "Prefer: wait=60\r\nIf-None-Match: %s\r\n", f->etag);
    f->asked = true;
    client_ask(&f->client, path_of(f), headers);
}

/* Sends the requests that are due; returns the time of the next one. */
static double ask_those_due(double now)
{
    double next = INFINITY;
    for (struct follower *f = followers; f < followers + n_followers; f++) {
        if (f->asked || f->done)
            continue;
        if (f->due_ms <= now)
            ask(f);
        else
            next = fmin(next, f->due_ms);
    }
    return next;
}

/* ---- answers ---- */

/* The progress or "ended", in a static buffer. */
static const char *progress_in(const char *text)
{
    static char progress[16];
    static const char name[] = "\"progress\":";
    if (strstr(text, "\"SUCCESS\"") != NULL)
        return "ended";
    const char *at = strstr(text, name);
    at = at == NULL ? "" : at + sizeof(name) - 1;
    at += strspn(at, " \"");
    snprintf(progress, sizeof(progress), "%.*s", (int)strspn(at, "0123456789%"), at);
    return progress[0] ? progress : "-";
}

/* Prints one answer or event; returns whether the task has ended. */
static bool note(const struct follower *f, const char *text, int status)
{
    const char *progress = progress_in(text);
    printf("%zu %.3f %.3f %d %s\n", (size_t)(f - followers), f->due_ms, client_now_ms(), status, progress);
    return manner != ASK && strcmp(progress, "ended") == 0;
}

static void take_etag(struct follower *f)
{
    static const char name[] = "\r\nETag: ";
    const char *at = strstr(f->client.data, name);
    if (at != NULL)
        snprintf(f->etag, sizeof(f->etag), "%.*s", (int)strcspn(at + sizeof(name) - 1, "\r"),
                 at + sizeof(name) - 1);
}

static void take_answer(struct follower *f)
{
    if (!client_has_answer(&f->client))
        return;
    f->asked = false;
    if (note(f, f->client.data, atoi(f->client.data + strlen("HTTP/1.1 "))))
        return leave(f);
    if (manner == WAIT)
        take_etag(f);
    f->due_ms = manner == WAIT ? client_now_ms() : f->due_ms + period_ms;
}

/* Drops the data before `end`. */
static void drop_until(struct client *c, const char *end)
{
    c->len -= (size_t)(end - c->data);
    memmove(c->data, end, c->len + 1);
}

/* An event ends with an empty line; chunk heads and comments are skipped. */
static void take_events(struct follower *f)
{
    char *data = f->client.data, *end;
    if (!f->head_is_off) {
        if ((end = strstr(data, "\r\n\r\n")) == NULL)
            return;
        if (strncmp(data, "HTTP/1.1 200", 12) != 0)
            errx(EXIT_FAILURE, "%.*s", (int)strcspn(data, "\r"), data);
        f->head_is_off = true;
        drop_until(&f->client, end + 4);
    }
    while (!f->done && (end = strstr(data, "\n\n")) != NULL) {
        end[1] = '\0';
        if (strstr(data, "event: status") != NULL && note(f, data, 200))
            leave(f);
        drop_until(&f->client, end + 2);
    }
}

static void on_readable(struct follower *f)
{
    bool open = client_receive(&f->client);
    if (f->done)
        return;
    if (!open)
        errx(EXIT_FAILURE, "a connection ended before the task");
    if (manner == STREAM)
        take_events(f);
    else
        take_answer(f);
}

/* ---- main loop ---- */

static void follow(int epoll, double until)
{
    double now;
    while (n_left > 0 && (now = client_now_ms()) < until) {
        struct epoll_event events[BATCH];
        double wait_ms = fmin(ask_those_due(now), until) - now;
        struct timespec wait = {.tv_sec = (time_t)(wait_ms / 1e3),
                                .tv_nsec = (long)(fmod(wait_ms, 1e3) * 1e6)};
        int n = epoll_pwait2(epoll, events, BATCH, &wait, NULL);
        for (int i = 0; i < n; i++)
            on_readable(events[i].data.ptr);
    }
}

static enum manner manner_by_name(const char *name)
{
    static const char *const names[] = {[ASK] = "ask", [POLL] = "poll", [WAIT] = "wait", [STREAM] = "stream"};
    for (int i = ASK; i <= STREAM; i++) {
        if (strcmp(name, names[i]) == 0)
            return (enum manner)i;
    }
    errx(EXIT_FAILURE, "no such manner: %s", name);
}

int main(int argc, char **argv)
{
    if (argc < 5 || argc > 6)
        errx(EXIT_FAILURE, "usage: follow PORT ask|poll|wait|stream SECONDS PERIOD_MS [HEADER] < PATHS");
    if (argc == 6)
        client_use_header(argv[5]);
    manner = manner_by_name(argv[2]);
    period_ms = atof(argv[4]);
    char(*paths)[CLIENT_PATH_SIZE] = client_read_paths(&n_followers);
    followers = calloc(n_followers, sizeof(*followers));
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (followers == NULL || epoll < 0)
        err(EXIT_FAILURE, "no means");
    client_allow_descriptors();
    for (size_t i = 0; i < n_followers; i++) {
        followers[i].path = paths[i];
        client_open(&followers[i].client, atoi(argv[1]), epoll);
    }
    n_left = n_followers;
    double start = client_now_ms();
    for (size_t i = 0; i < n_followers; i++)
        followers[i].due_ms = start + period_ms * drand48();
    follow(epoll, start + 1e3 * atof(argv[3]));
    free(followers);
    free(paths);
    return EXIT_SUCCESS;
}
