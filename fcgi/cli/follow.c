/* follow: see follow.h.
 *
 *     ask --> on_answer --> 200: show the view; when the task has ended: finish
 *      ^          |  '----> 304: nothing new
 *      |          '-------> failure: retry, unless it has lasted too long
 *      '--- after a pause
 *
 * Every query after the first has the ETag of the last view, and the server holds it until the view differs.
 *
 * The server may not be trustworthy: its answers are parsed strictly and printed only as progress.c and sanitize.c allow. */
#include "cli/follow.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "lib/address.h"
#include "lib/backoff.h"
#include "upstream/headers.h"
#include "upstream/http.h"
#include "lib/sanitize.h"
#include "cli/progress.h"
#include "cli/tty.h"
#include "lib/files.h"

#define WAIT_S "30" /* how long the server is asked to hold a query */

enum {
    CONNECT_MS = 10 * 1000,
    ANSWER_MS = 45 * 1000, /* longer than the server holds a query */
    RETRY_FIRST_MS = 500,
    RETRY_MAX_MS = 15 * 1000,
    PATIENCE_FIRST_MS = 5 * 1000, /* before the server has answered at all */
    PATIENCE_MS = 5 * 60 * 1000,  /* since the last good answer */
    NEWS_MS = 100,                /* pause after a view that differs */
    SAME_MS = 1000,               /* pause after one that does not */
    SECOND_MS = 1000,
    URL_MAX = 16384,
    ETAG_MAX = 256,
    ANSWER_MAX = 4 * 1024 * 1024
};

struct follow {
    uv_loop_t loop;
    struct http *http;
    struct http_call *call; /* the query in progress, or NULL */
    char *url;
    char *token;          /* in the vault, or NULL */
    char etag[ETAG_MAX];  /* of the last view; "" for none */
    struct progress task; /* the last view; STATE_NONE before the first */
    char last_line[PROGRESS_LINE_MAX];
    enum follow_end end;
    bool answered; /* the server has answered at least once */
    struct backoff backoff;
    uint64_t begun_ms; /* loop time */
    uint64_t good_ms;  /* time of the last good answer, likewise */
    struct tty screen;
    uv_timer_t next, second;
    uv_signal_t signals[3];
};

/* ---- output ---- */

static void draw(struct follow *f)
{
    char bar[PROGRESS_LINE_MAX];
    if (f->task.state == STATE_NONE)
        return;
    progress_bar(&f->task, (int64_t)(uv_now(&f->loop) - f->begun_ms) / 1000, tty_width(), bar);
    tty_draw(&f->screen, bar);
}

/* In a terminal, a bar that is redrawn, and a line at the end; otherwise a line for each change. Results come last. */
static void show(struct follow *f)
{
    char line[PROGRESS_LINE_MAX];
    bool ended = state_ended(f->task.state);
    progress_line(&f->task, line);
    if (f->screen.is_terminal ? ended : strcmp(line, f->last_line) != 0)
        tty_say(&f->screen, line);
    memcpy(f->last_line, line, sizeof(line));
    char *const *urls = f->task.results.items;
    for (size_t i = 0; i < f->task.results.n && ended; i++)
        tty_say(&f->screen, urls[i]);
    if (!ended)
        draw(f);
}

static void on_second(uv_timer_t *timer)
{
    draw(CONTAINER_OF(timer, struct follow, second));
}

/* ---- the end ---- */

/* Closes all handles, which ends the loop. */
static void finish(struct follow *f, enum follow_end end)
{
    f->end = end;
    tty_clear(&f->screen);
    if (f->call != NULL)
        http_cancel(f->call);
    f->call = NULL;
    http_free(f->http);
    uv_close((uv_handle_t *)&f->next, NULL);
    uv_close((uv_handle_t *)&f->second, NULL);
    for (size_t i = 0; i < NELEMS(f->signals); i++)
        uv_close((uv_handle_t *)&f->signals[i], NULL);
}

static void refuse(struct follow *f, enum follow_end end, const char *why)
{
    tty_complain(&f->screen, "%s", why);
    finish(f, end);
}

static void on_signal(uv_signal_t *signal, int number)
{
    if (number == SIGWINCH)
        draw(signal->data);
    else
        finish(signal->data, FOLLOW_INTERRUPTED);
}

/* ---- the next query ---- */

static void on_next(uv_timer_t *timer);

static void retry(struct follow *f, const char *why, int64_t retry_after_ms)
{
    uint64_t patience_ms = f->answered ? PATIENCE_MS : PATIENCE_FIRST_MS;
    bool is_first = f->backoff.last_ms == 0;
    int64_t ms = backoff_next(&f->backoff);
    ms += rand() % (int)(ms / 4); /* clients that were cut off together do not come back together */
    ms = ms > retry_after_ms ? ms : retry_after_ms;
    if (uv_now(&f->loop) + (uint64_t)ms > f->good_ms + patience_ms)
        return refuse(f, FOLLOW_UNREACHED, why);
    if (is_first)
        tty_complain(&f->screen, "%s; trying again", why);
    draw(f);
    uv_timer_start(&f->next, on_next, (uint64_t)ms, 0);
}

/* ---- answers ---- */

static void go_on(struct follow *f, int64_t after_ms)
{
    backoff_reset(&f->backoff);
    f->good_ms = uv_now(&f->loop);
    if (f->screen.broken)
        finish(f, FOLLOW_UNREACHED);
    else if (state_ended(f->task.state))
        finish(f, f->task.state == STATE_SUCCEEDED ? FOLLOW_SUCCEEDED : FOLLOW_FAILED);
    else
        uv_timer_start(&f->next, on_next, (uint64_t)after_ms, 0);
}

static void take_view(struct follow *f, const struct http_answer *answer)
{
    struct progress task;
    if (!progress_read(answer->body, answer->len, &task))
        return refuse(f, FOLLOW_UNREACHED,
                      "the answer is not a unified view of a task; is the server an older taskproxy?");
    const char *etag = answer->etag && strlen(answer->etag) < ETAG_MAX ? answer->etag : "";
    bool is_new = etag[0] != '\0' && strcmp(etag, f->etag) != 0;
    snprintf(f->etag, ETAG_MAX, "%s", etag);
    progress_done(&f->task);
    f->task = task;
    show(f);
    go_on(f, is_new ? NEWS_MS : SAME_MS + answer->retry_after_ms);
}

/* Prefers the server's explanation, if there is one. */
static void take_problem(struct follow *f, const struct http_answer *answer)
{
    char status[64];
    char detail[PROGRESS_TEXT_SIZE];
    snprintf(status, sizeof(status), "the server answered with status %d", answer->status);
    progress_problem(answer->body, answer->len, detail);
    const char *why = detail[0] ? detail : status;
    if (answer->status >= 500 || answer->status == 429)
        retry(f, why, answer->retry_after_ms);
    else
        refuse(f, answer->status == 404 ? FOLLOW_UNKNOWN : FOLLOW_UNREACHED, why);
}

static void on_answer(void *user, const struct http_answer *answer)
{
    struct follow *f = user;
    f->call = NULL;
    f->answered |= answer->outcome == OUTCOME_OK;
    if (answer->outcome != OUTCOME_OK)
        retry(f, answer->why, 0);
    else if (answer->status == 200)
        take_view(f, answer);
    else if (answer->status == 304)
        go_on(f, SAME_MS);
    else
        take_problem(f, answer);
}

/* ---- queries ---- */

static void ask(struct follow *f)
{
    struct headers headers;
    headers_init(&headers);
    headers_add(&headers, "Prefer", f->etag[0] ? "view=unified, wait=" WAIT_S : "view=unified");
    if (f->etag[0] != '\0')
        headers_add(&headers, "If-None-Match", f->etag);
    if (f->token != NULL)
        headers_add_template(&headers, "Authorization", "Bearer {key}", f->token, NULL, 0);
    const struct http_question question = {.url = f->url,
                                           .headers = headers.lines,
                                           .allowed = ADDRESS_ANY,
                                           .timeout_ms = ANSWER_MS,
                                           .connect_timeout_ms = CONNECT_MS,
                                           .max_body = ANSWER_MAX};
    f->call = http_get(f->http, &question, on_answer, f);
    headers_done(&headers);
}

static void on_next(uv_timer_t *timer)
{
    ask(CONTAINER_OF(timer, struct follow, next));
}

static void start(struct follow *f)
{
    static const int signals[NELEMS(f->signals)] = {SIGINT, SIGTERM, SIGWINCH};
    unsigned seed;
    random_bytes(&seed, sizeof(seed));
    srand(seed);
    uv_loop_init(&f->loop);
    tty_init(&f->screen);
    f->http = http_new(&f->loop);
    f->begun_ms = f->good_ms = uv_now(&f->loop);
    uv_timer_init(&f->loop, &f->next);
    uv_timer_init(&f->loop, &f->second);
    uv_timer_start(&f->second, on_second, SECOND_MS, SECOND_MS);
    for (size_t i = 0; i < NELEMS(f->signals); i++) {
        uv_signal_init(&f->loop, &f->signals[i]);
        f->signals[i].data = f;
        uv_signal_start(&f->signals[i], on_signal, signals[i]);
    }
    signal(SIGPIPE, SIG_IGN); /* a closed pipe is noticed at the next write */
}

static enum follow_end run(struct follow *f)
{
    start(f);
    ask(f);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    if (uv_loop_close(&f->loop) != 0)
        abort(); /* finish has left a handle open */
    progress_done(&f->task);
    return f->end;
}

/* ---- the command line ---- */

/* Why the URL cannot be used, or NULL. */
static const char *refuse_url(const char *url)
{
    bool tls = strncasecmp(url, "https://", 8) == 0;
    for (const char *c = url; *c != '\0'; c++) {
        if ((unsigned char)*c <= 0x20 || (unsigned char)*c >= 0x7f)
            return "must consist of visible ASCII characters";
    }
    if (strlen(url) > URL_MAX)
        return "is too long";
    if (!tls && strncasecmp(url, "http://", 7) != 0)
        return "must begin with http:// or https://";
    const char *host = url + (tls ? 8 : 7);
    if (strcspn(host, ":/?#") == 0)
        return "has no host";
    return host[strcspn(host, "@/?#")] == '@' ? "must not contain a user name or password" : NULL;
}

/* A provider's name and an id, which may have several parts. */
static bool is_task(const char *text)
{
    static const char of_names[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    size_t provider = strspn(text, of_names);
    return provider > 0 && text[provider] == '/' && text[provider + 1] != '\0' && strlen(text) <= 1024;
}

static char *beneath(const char *base, const char *task)
{
    struct buf url;
    size_t len = strlen(base);
    while (len > 0 && base[len - 1] == '/')
        len--;
    buf_init(&url, 2 * URL_MAX);
    buf_add(&url, base, len);
    buf_puts(&url, "/v1/tasks");
    while (*task != '\0') {
        char *part = xstrndup(task, strcspn(task, "/"));
        buf_putc(&url, '/');
        buf_add_percent(&url, part);
        task += strlen(part);
        task += *task == '/';
        free(part);
    }
    return url.data;
}

char *follow_url(const char *text, const char *base, char **ret_error)
{
    bool is_url = strstr(text, "://") != NULL;
    const char *why = refuse_url(is_url ? text : base);
    if (!is_url && !is_task(text))
        *ret_error = xasprintf("\"%s\" is neither a URL nor PROVIDER/ID", text);
    else if (why != NULL)
        *ret_error = xasprintf("\"%s\" %s", is_url ? text : base, why);
    else if (!is_url && strpbrk(base, "?#") != NULL)
        *ret_error = xasprintf("\"%s\" must not have a query", base);
    else
        return is_url ? xstrndup(text, strcspn(text, "#")) : beneath(base, text);
    return NULL;
}

static const char *base_of(const struct follow_order *order)
{
    const char *given = getenv("TASKPROXY_URL");
    if (order->base != NULL)
        return order->base;
    return given != NULL && given[0] != '\0' ? given : "http://127.0.0.1";
}

static char *read_token(const char *path)
{
    char *why = NULL;
    struct files *files = files_new();
    char *token = secret_read(files, path, 1, &why);
    if (token == NULL)
        fprintf(stderr, "taskproxy: %s %s\n", path, why);
    files_free(files);
    free(why);
    return token;
}

enum follow_end follow_task(const struct follow_order *order)
{
    char *error = NULL;
    struct follow f = {.url = follow_url(order->target, base_of(order), &error),
                       .backoff = {.first_ms = RETRY_FIRST_MS, .max_ms = RETRY_MAX_MS}};
    enum follow_end end = FOLLOW_USAGE;
    if (f.url == NULL)
        fprintf(stderr, "taskproxy: %s\n", error);
    else if (order->token_file == NULL || (f.token = read_token(order->token_file)) != NULL)
        end = run(&f);
    vault_free(f.token);
    free(f.url);
    free(error);
    return end;
}
