/* floor: a minimal FastCGI program on taskproxy's FastCGI server. It answers every request with the contents of
 * ANSWER_FILE: head, empty line and body, as a CGI program writes them.
 *
 *     floor SOCKET ANSWER_FILE [DELAY_MS]
 *
 * It serves until its standard input ends; then it prints the number of requests. */
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "net/fcgi.h"
#include "lib/stats.h"

enum { BACKLOG = 4096, CONNECTIONS_MAX = 4096, ANSWER_MAX = 64 * 1024 };

struct held {
    struct fcgi_request *client; /* (ref) NULL once it is gone */
    uv_timer_t timer;
};

static char head[ANSWER_MAX + 1];
static size_t head_len;
static struct body body; /* the text after the head */
static uint64_t delay_ms;

static void answer(struct fcgi_request *client)
{
    fcgi_send(client, head, head_len, &body);
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void on_time(uv_timer_t *timer)
{
    struct held *held = timer->data;
    if (held->client != NULL)
        answer(held->client);
    uv_close((uv_handle_t *)timer, on_closed);
}

static void on_gone(void *user)
{
    struct held *held = user;
    held->client = NULL;
}

static void hold(uv_loop_t *loop, struct fcgi_request *client)
{
    struct held *held = xcalloc(1, sizeof(*held));
    held->client = client;
    held->timer.data = held;
    fcgi_on_gone(client, on_gone, held);
    uv_timer_init(loop, &held->timer);
    uv_timer_start(&held->timer, on_time, delay_ms, 0);
}

static void on_request(void *ctx, struct fcgi_request *client)
{
    if (delay_ms == 0)
        answer(client);
    else
        hold(ctx, client);
}

static void on_input(uv_poll_t *poll, int status, int events)
{
    char sink[64];
    (void)status, (void)events;
    if (read(STDIN_FILENO, sink, sizeof(sink)) <= 0)
        uv_stop(poll->loop);
}

static int listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || chmod(path, 0666) < 0 ||
        listen(fd, BACKLOG) < 0)
        err(EXIT_FAILURE, "%s", path);
    return fd;
}

static void read_answer(const char *path)
{
    static const char empty_line[] = "\r\n\r\n";
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    long len = fd < 0 ? -1 : read_full(fd, head, ANSWER_MAX);
    const char *head_end = len < 0 ? NULL : strstr(head, empty_line);
    if (head_end == NULL)
        errx(EXIT_FAILURE, "%s holds no answer", path);
    body.text = head_end + strlen(empty_line);
    head_len = (size_t)(body.text - head);
    body.text_len = (size_t)len - head_len;
    close(fd);
}

int main(int argc, char **argv)
{
    if (argc < 3)
        errx(EXIT_FAILURE, "usage: floor SOCKET ANSWER_FILE [DELAY_MS]");
    read_answer(argv[2]);
    delay_ms = argc > 3 ? strtoul(argv[3], NULL, 10) : 0;
    uv_loop_t loop;
    uv_loop_init(&loop);
    fcgi_listen(&loop, listen_at(argv[1]), CONNECTIONS_MAX,
                (struct fcgi_handlers){.on_request = on_request, .ctx = &loop});
    uv_poll_t input;
    uv_poll_init(&loop, &input, STDIN_FILENO);
    uv_poll_start(&input, UV_READABLE, on_input);
    uv_run(&loop, UV_RUN_DEFAULT);
    printf("%lld\n", (long long)stat_get(STAT_REQUESTS));
    return EXIT_SUCCESS;
}
